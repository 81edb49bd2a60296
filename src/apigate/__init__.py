"""apigate: the API gateway that you import.

The rooms:

- `apigate.gateway`, `config`, `pipeline`: the gateway, its settings, and both compiled into a pipeline, for which
  `running_stage` and `stage_caches` keep what a stage has at run time;
- `apigate.flask`, `fastapi`, `django`, and `asgi`, `wsgi` around anything else: the edges, where requests come in;
  `asgi_exchange` and `wsgi_exchange` let the cache hear what an app answers;
- `apigate.decorators`, `cache_decorator`, `endpoint_gate`, `routing`: limits and caches on single endpoints, and how
  each framework's routes are read;
- `apigate.cli`, `audit`, `explain`, `lint`, `demo`: what people ask of a gateway;
- `apigate.throttling`: rates, windows, token buckets, decisions, client identity; usable alone through `Throttle`;
- `apigate.caching`: a shared HTTP cache as RFC 9111 has it; usable alone through `ResponseCache`;
- `apigate.staging`: how a request's stage is found;
- `apigate.stores`: where buckets, and responses that workers share, are kept;
- `apigate.testing`: clock and contracts for your tests;
- `apigate.core`: what all of them share: errors, clock, messages, context, policies, routes, events.
"""

from apigate.caching.cache import ResponseCache as ResponseCache
from apigate.caching.settings import CachePolicy as CachePolicy
from apigate.config import Method as Method
from apigate.config import Stage as Stage
from apigate.core.cors import CORS as CORS
from apigate.core.errors import ApigateError as ApigateError
from apigate.core.errors import ConfigurationError as ConfigurationError
from apigate.core.errors import ProtocolError as ProtocolError
from apigate.core.errors import StoreError as StoreError
from apigate.core.errors import StoreTimeoutError as StoreTimeoutError
from apigate.core.responses import GatewayResponse as GatewayResponse
from apigate.gateway import Gateway as Gateway
from apigate.throttling.decision import Decision as Decision
from apigate.throttling.decision import LevelState as LevelState
from apigate.throttling.decision import Throttled as Throttled
from apigate.throttling.rate import Rate as Rate
from apigate.throttling.throttle import Reservation as Reservation
from apigate.throttling.throttle import Throttle as Throttle
from apigate.throttling.window import Window as Window

__version__ = "0.1.0"

__all__ = [
    "CORS",
    "ApigateError",
    "CachePolicy",
    "ConfigurationError",
    "Decision",
    "Gateway",
    "GatewayResponse",
    "LevelState",
    "Method",
    "ProtocolError",
    "Rate",
    "Reservation",
    "ResponseCache",
    "Stage",
    "StoreError",
    "StoreTimeoutError",
    "Throttle",
    "Throttled",
    "Window",
]
