"""No routes: each test brings its own."""

urlpatterns: list[object] = []
