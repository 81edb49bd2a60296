"""Stages: named configurations in front of an app, and how a request's stage is found."""

from apigate.staging.selector import Header as Header
from apigate.staging.selector import Host as Host
from apigate.staging.selector import PathPrefix as PathPrefix
from apigate.staging.selector import StageSelector as StageSelector

__all__ = ["Header", "Host", "PathPrefix", "StageSelector"]
