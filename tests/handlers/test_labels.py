"""Labels of metrics: bounded, and nobody's name, key or words."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from ragserve.store.keys import create_key
from tests.conftest import Api

COUNTED = 4


async def scrape(api: Api) -> tuple[str, set[tuple[str, ...]]]:
    """Return the metrics as text, and their series."""
    async with api.client.get("/metrics") as response:
        text = await response.text()
    series = {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return text, series


async def visit(api: Api, number: int) -> list[str]:
    """Be a tenant of one's own who does all kinds of things; return what nobody should see."""
    tenant = f"zebra{number}"
    _, token = await create_key(
        api.services.database, tenant=tenant, name=f"quagga{number}", scopes=["query", "ingest"]
    )
    headers = {"Authorization": f"Bearer {token}", "X-Request-ID": f"okapi{number}"}
    wrong = {"Authorization": f"Bearer rs_gnu{number}_x"}
    question = {"query": f"kudu{number}", "collection": f"eland{number}"}
    document = {"id": f"oryx{number}", "text": f"impala{number}", "collection": f"eland{number}"}
    for method, path, body, headers_of in (
        ("POST", "/v1/documents?wait=30", document, headers),
        ("POST", "/v1/query", question, headers),
        ("POST", "/v1/search", question, headers),
        ("GET", f"/v1/documents/oryx{number}?collection=eland{number}", None, headers),
        ("GET", "/v1/models", None, wrong),
        ("GET", f"/bongo{number}", None, headers),
        ("PROPFIND", "/v1/query", None, headers),
        ("GET", "/v1/keys", None, headers),
    ):
        async with api.client.request(method, path, json=body, headers=headers_of) as response:
            await response.read()
    animals = "zebra quagga okapi gnu kudu eland oryx impala bongo".split()
    return [*(f"{animal}{number}" for animal in animals), *token.split("_", 2)[1:]]


async def test_labels_are_bounded_and_nobodys(api: Api) -> None:
    """Tenants, keys, documents and questions come without a series more, and without a word."""
    await scrape(api)  # which is counted, too
    hidden = await visit(api, 0)
    _, before = await scrape(api)
    for number in range(1, COUNTED):
        hidden += await visit(api, number)
    text, after = await scrape(api)
    assert [word for word in hidden if word in text] == []
    assert after - before == set()
