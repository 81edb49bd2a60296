"""The least a Django project needs; tests that want more override it."""

SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.django_urls"
INSTALLED_APPS = ["apigate.django"]
MIDDLEWARE: list[str] = []
LOGGING_CONFIG = None  # pytest's own stays
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None}  # else it wants a database
