"""Carbon intensities from a number, a file, and servers that answer as Electricity Maps and WattTime document their API v3."""

import asyncio
import base64
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web

from perjoule.adapters.grid import HOUR_NS, ElectricityMaps, GridError, WattTime, open_grid
from perjoule.adapters.ledger import intensities
from perjoule.adapters.ledger.store import Ledger
from perjoule.sidecar.footprint.carbon import Intensity, Kind

HOUR = 1_790_000_000_000_000_000 // HOUR_NS * HOUR_NS


def iso(unix_ns, tail=".000Z"):
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC).replace(tzinfo=None).isoformat() + tail


class Api:
    """What a server of either answers."""

    def __init__(self):
        self.asked, self.tokens, self.answer, self.logins = [], 0, None, []

    async def history(self, request):
        self.asked.append((dict(request.query), request.headers.get("auth-token")))
        if request.headers.get("auth-token") != "t0ken":
            return web.json_response({"error": "Invalid auth-token"}, status=401)
        return web.json_response(self.answer or {"zone": "DE", "history": [self.point(0, 302), self.point(1, 298.5, estimated=True)]})

    @staticmethod
    def point(hour, value, estimated=False, **more):
        return {"zone": "DE", "carbonIntensity": value, "datetime": iso(HOUR + hour * HOUR_NS), "updatedAt": iso(HOUR),
                "createdAt": iso(HOUR), "emissionFactorType": "lifecycle", "isEstimated": estimated,
                "estimationMethod": "TIME_SLICER_AVERAGE" if estimated else None, **more}

    async def login(self, request):
        self.logins.append(request.headers["Authorization"])
        if request.headers["Authorization"] != "Basic " + base64.b64encode(b"me:secret").decode():
            return web.json_response({"error": "Unauthorized"}, status=403)
        self.tokens += 1
        return web.json_response({"token": f"bearer-{self.tokens}"})

    async def historical(self, request):
        self.asked.append((dict(request.query), request.headers.get("Authorization")))
        if request.headers.get("Authorization") != f"Bearer bearer-{self.tokens}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        points = [{"point_time": iso(HOUR + i * 300_000_000_000, "+00:00"), "value": value, "version": "2023-03-01"}
                  for i, value in enumerate((870.0, 902.3))]
        meta = {"data_point_period_seconds": 300, "region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
        return web.json_response(self.answer or {"data": points, "meta": {**meta, "warnings": []}})


@asynccontextmanager
async def server():
    api, app = Api(), web.Application()
    app.add_routes([web.get("/v3/carbon-intensity/history", api.history), web.get("/login", api.login),
                    web.get("/v3/historical", api.historical)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield api, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def fetched(source):
    return await asyncio.to_thread(source.fetch, HOUR, HOUR + 2 * HOUR_NS)


async def test_electricity_maps_tells_averages_by_the_hour():
    """The zone and the auth-token are sent; each value holds for its hour, says whether it is an estimate, and null is no value."""
    async with server() as (api, base):
        first, second = await fetched(ElectricityMaps("DE", "t0ken", base))
        assert api.asked == [({"zone": "DE"}, "t0ken")]
        assert first == Intensity("electricitymaps", "DE", Kind.AVERAGE, HOUR, HOUR + HOUR_NS, "302", "gCO2eq/kWh", 302_000, False)
        assert (second.value, second.mg_per_kwh, second.estimated) == ("298.5", 298_500, True)
        api.answer = {"zone": "DE", "data": [api.point(0, None), api.point(1, 7, temporalGranularity="15_minutes")]}
        (only,) = await fetched(ElectricityMaps("DE", "t0ken", base))
        assert only.until_unix_ns - only.begin_unix_ns == HOUR_NS // 4


async def test_watttime_tells_margins_by_five_minutes_and_logs_in_again():
    """Basic at the login, a bearer's token after it, a new one when it has run out; pounds for a MWh become grams for a kWh."""
    async with server() as (api, base):
        source = WattTime("CAISO_NORTH", "me:secret", base)
        first, second = await fetched(source)
        query, token = api.asked[0]
        assert query == {"region": "CAISO_NORTH", "signal_type": "co2_moer", "start": iso(HOUR, "")[:16] + "Z",
                         "end": iso(HOUR + 2 * HOUR_NS, "")[:16] + "Z"}
        assert token == "Bearer bearer-1"
        assert first == Intensity("watttime", "CAISO_NORTH", Kind.MARGINAL, HOUR, HOUR + HOUR_NS // 12, "870.0", "lbs_co2_per_mwh", 394_625)
        assert second.begin_unix_ns == first.until_unix_ns
        api.tokens += 1  # the server forgets the token
        assert len(await fetched(source)) == 2
        assert len(api.logins) == 2


@pytest.mark.parametrize("answer", [{"zone": "DE"}, {"history": [{}]}, {"history": [{"carbonIntensity": "x", "datetime": iso(HOUR)}]}, [1],
                                    {"data": [{"point_time": 3}], "meta": None}])
async def test_an_answer_of_another_shape_is_an_error_and_no_value(answer):
    """With what was asked; the token is in none of them."""
    async with server() as (api, base):
        api.answer = answer
        for source in (ElectricityMaps("DE", "t0ken", base), WattTime("CAISO_NORTH", "me:secret", base)):
            with pytest.raises(GridError, match="got another shape") as error:
                await fetched(source)
            assert "t0ken" not in str(error.value)
            assert "secret" not in str(error.value)


async def test_a_wrong_token_and_a_closed_port_are_errors():
    async with server() as (_, base):
        with pytest.raises(GridError, match="HTTP 401"):
            await fetched(ElectricityMaps("DE", "wrong", base))
        with pytest.raises(GridError, match="/login: got HTTP 403"):
            await fetched(WattTime("X", "me:wrong", base))
    with pytest.raises(GridError, match="ConnectionError"):
        await fetched(ElectricityMaps("DE", "t0ken", base))


async def test_what_was_fetched_is_kept_once_and_corrected(tmp_path):
    """A later answer replaces the earlier one of the same time; source, kind and unit stay with it."""
    ledger = Ledger(tmp_path / "ledger")
    async with server() as (api, base):
        source = ElectricityMaps("DE", "t0ken", base)
        first = await fetched(source)
        intensities.keep(ledger.database, first, 1)
        api.answer = {"zone": "DE", "history": [api.point(1, 250)]}
        intensities.keep(ledger.database, second := await fetched(source), 2)
        assert intensities.between(ledger.database, HOUR, HOUR + 2 * HOUR_NS) == [first[0], second[0]]
        assert intensities.between(ledger.database, HOUR + HOUR_NS, HOUR + 2 * HOUR_NS) == second
    ledger.close()


def test_a_fixed_number_holds_by_the_hour():
    """From the hour in which it was asked for; its kind is average unless it says otherwise."""
    (told,) = open_grid("fixed:380.5", None).fetch(HOUR + 5, HOUR + HOUR_NS)
    assert told == Intensity("fixed", "", Kind.AVERAGE, HOUR, HOUR + HOUR_NS, "380.5", "gCO2eq/kWh", 380_500)
    assert open_grid("fixed:380:marginal", None).fetch(HOUR, HOUR + 1)[0].kind == "marginal"


@pytest.mark.parametrize("text", [
    "start,g_per_kwh\n{0},300\n{1},310\n{2},\n",
    '[{{"start":"{0}","g_per_kwh":300}},{{"start":"{1}","g_per_kwh":310.0}},{{"start":"{2}"}}]'])
def test_a_file_tells_its_series(tmp_path, text):
    """CSV or JSON; the last row says where it ends, so that nothing is assumed beyond."""
    path = tmp_path / "grid"
    path.write_text(text.format(*(iso(HOUR + hour * HOUR_NS, "+00:00") for hour in range(3))))
    source = open_grid(f"file:{path}", None)
    assert [(each.begin_unix_ns, each.until_unix_ns, each.mg_per_kwh) for each in source.fetch(HOUR, HOUR + 9 * HOUR_NS)] == [
        (HOUR, HOUR + HOUR_NS, 300_000), (HOUR + HOUR_NS, HOUR + 2 * HOUR_NS, 310_000)]
    assert len(source.fetch(HOUR + HOUR_NS, HOUR + HOUR_NS + 1)) == 1


@pytest.mark.parametrize("text", ["", "[1]", "[", "a,b\n1,2\n", "start,g_per_kwh\n2026-07-01T00:00:00Z,1\n",
                                  "start,g_per_kwh\n2026-07-01T00:00:00,1\n2026-07-01T01:00:00,1\n",
                                  "start,g_per_kwh,kind\n2026-07-01T00:00:00Z,1,middling\n2026-07-01T01:00:00Z,,\n",
                                  "start,g_per_kwh\n2026-07-01T00:00:00Z,many\n2026-07-01T01:00:00Z,\n"])
def test_a_file_that_tells_no_series_is_refused(tmp_path, text):
    path = tmp_path / "grid"
    path.write_text(text)
    with pytest.raises(GridError, match=str(path)):
        open_grid(f"file:{path}", None)


@pytest.mark.parametrize("text", ["fixed:", "fixed:much", "fixed:-1", "fixed:nan", "fixed:1:median", "file:", "file:/nowhere/at/all",
                                  "electricitymaps:DE", "watttime:X", "coal:1", "380"])
def test_a_source_that_cannot_be_is_refused(text):
    """Also one that needs a token and has none."""
    with pytest.raises(ValueError, match=r"expected|cannot|No such"):
        open_grid(text, None)
