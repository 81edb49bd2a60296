"""The core: what every domain and every edge shares. It imports nothing else of apigate."""
