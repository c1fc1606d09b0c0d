"""The Energy Forecast Platform: half-hourly electricity demand readings in, a day-ahead forecast out.

`api` serves HTTP, `worker` forecasts and scores on a timer, `migrations` hands out the Alembic scripts. Running
migrations, building images and releasing belong to the project around this package.
"""
