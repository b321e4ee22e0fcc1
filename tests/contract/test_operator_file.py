"""The operator's file: what it must say, and how it is refused."""

import re

import pytest
from gateways import write_files

from deploy.gateway.door import GatedTriton
from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.envoy.routes import virtual_host
from deploy.gateway.operator_file import Address, Budget, read
from deploy.gateway.process import GatewayError, validate, write_configuration
from postprocess.errors import InputError

UPSTREAM = Upstream(
    Address("127.0.0.1", 8001), Address("127.0.0.1", 8000), hidden=("my-net", "it's\\", "größe")
)


def edited(folder, old, new):
    files = write_files(folder)
    text = files.path.read_text()
    assert old in text
    files.path.write_text(text.replace(old, new))
    return files.path


def test_a_file_is_read_whole(tmp_path):
    more = (
        "rate: {queries: 20, per: second}\n"
        "limits: {request_mib: 4, timeout_seconds: 7, connections: 9}\n"
    )
    operator = read(write_files(tmp_path, more=more).path)
    assert operator.models == ("digits",)
    assert [client.name for client in operator.clients] == ["alice", "bob"]
    assert operator.clients[0].budget == Budget(100, 86400)
    assert operator.clients[1].budget is None
    assert operator.rate == Budget(20, 1)
    assert operator.limits.request_mib == 4


def test_a_client_has_the_models_of_its_own_list_or_of_all(tmp_path):
    path = edited(tmp_path, "queries: unlimited", "queries: unlimited, models: [more, my.net]")
    path.write_text(path.read_text().replace("per: day", "per: day, models: [net], raw: true"))
    operator = read(path)
    assert [(one.models, one.raw) for one in operator.clients] == [
        (("net",), True),
        (("more", "my.net"), False),
    ]
    assert operator.models == ("digits", "more", "my.net")
    assert operator.raw_models == ("net",)
    validate(write_configuration(operator, UPSTREAM, "s" * 32, tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("models:", "modles:", "unknown key 'modles'; did you mean models?"),
        ("[digits]", "[]", "models: expected a list of public model names, got []"),
        ("[digits]", "['a|b']", "models: expected a model name of 1 to 100 letters, digits, '_', "
         "'-' and '.', the first a letter, a digit or '_', got 'a|b'"),
        ("[digits]", "['..']", "the first a letter, a digit or '_', got '..'"),
        ("  bob:", "  b.ob:", "clients: expected a name of letters, digits, _ and -, got 'b.ob'"),
        ("per: day", "per: year",
         "clients: alice: per: expected second or minute or hour or day, got 'year'"),
        ("queries: 100", "queries: 0",
         "clients: alice: queries: expected a whole number from 1 to 1000000000, got 0"),
        ("models:", "queries_per_request: 101\nmodels:",
         "clients: alice: queries: expected at least queries_per_request, 101, or no request is "
         "ever granted, got 100"),
        ("queries: 100", "queries: true",
         "clients: alice: queries: expected a whole number from 1 to 1000000000, got True"),
        ("key_file: alice.key", "key_file: no.key", "no.key: No such file or directory"),
        ("bob.key", "alice.key", "clients: bob: key_file: the key of another client"),
        ("queries: unlimited", "per: day", "clients: bob: queries is missing"),
        ("unlimited", "unlimited, per: day",
         "clients: bob: per: expected none with queries: unlimited, got 'day'"),
        ("models: [digits]", "", "clients: alice: models is missing: give this client a list, or "
         "all clients without one a list at the top of the file"),
        ("unlimited", "unlimited, models: []",
         "clients: bob: models: expected a list of public model names, got []"),
        ("unlimited", "unlimited, models: digits",
         "clients: bob: models: expected a list of public model names, got 'digits'"),
        ("unlimited", "unlimited, models: ['a|b']",
         "clients: bob: models: expected a model name of 1 to 100"),
        ("unlimited", "unlimited, raw: true",
         "clients: bob: raw: expected with it a list of models of this client's own"),
        ("unlimited", "unlimited, models: [x], raw: yes please",
         "clients: bob: raw: expected true or false, got 'yes please'"),
        ("unlimited", "unlimited, model: [x]",
         "clients: bob: unknown key 'model'; did you mean models?"),
        ("certificate: server.pem, ", "", "tls: certificate is missing"),
        ("listen: 127.0.0.1:", "listen: 127.0.0.1/",
         "listen: expected HOST:PORT, got '127.0.0.1/"),
        ("listen: 127.0.0.1:", "listen: ::1:",
         "listen: expected HOST:PORT, [ADDRESS]:PORT for IPv6, got '::1:"),
        ("listen: 127.0.0.1:", "listen: gateway.example:",
         "listen: expected an IP address of this machine or localhost, got 'gateway.example:"),
        ("statistics: 127.0.0.1:", "statistics: '[localhost]:1' #",
         "statistics: expected HOST:PORT, [ADDRESS]:PORT for IPv6, got '[localhost]:1'"),
        ("models:", "limits: {request_mib: 200}\nmodels:",
         "limits: memory_mib: expected at least 928 for requests of 200 MiB, got 512"),
        ("models:", "models: [digits]\nmodels:", "'models' is there twice"),
        ("models:", "models: [", "no YAML"),
        ("models:", "limits: {request_mib: 4000}\nmodels:",
         "limits: request_mib: expected a whole number from 1 to 1024, got 4000"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_by_name(tmp_path, old, new, message):
    path = edited(tmp_path, old, new)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("listen", "host", "shown"),
    [
        ("'[::1]:8443'", "::1", "[::1]:8443"),
        ("'[::]:8443'", "::", "[::]:8443"),
        ("localhost:8443", "127.0.0.1", "127.0.0.1:8443"),
    ],
)
def test_ipv6_and_localhost_are_taken(tmp_path, listen, host, shown):
    files = write_files(tmp_path)
    text = files.path.read_text().replace(f"listen: {files.url}", f"listen: {listen}")
    statistics = listen.replace("8443", "9443")
    files.path.write_text(text.replace(files.statistics, statistics))
    operator = read(files.path)
    assert operator.listen == Address(host, 8443)
    assert operator.statistics == Address(host, 9443)
    assert str(operator.listen) == shown
    validate(write_configuration(operator, UPSTREAM, "s" * 32, tmp_path))


def test_a_dot_in_a_models_name_is_a_dot_in_its_path(tmp_path):
    operator = read(write_files(tmp_path, models=("my.model", "a-b_c")).path)
    (infer, *_) = [route["match"]["safe_regex"]["regex"]
                   for route in virtual_host(operator)["routes"]
                   if route["name"] == "infer"]  # fmt: skip
    for path in ("/v2/models/my.model/infer", "/v2/models/a-b_c/versions/1/infer"):
        assert re.fullmatch(infer, path)
    for path in ("/v2/models/my-model/infer", "/v2/models/my/model/infer", "/v2/models/x/infer"):
        assert not re.fullmatch(infer, path)


def test_a_key_file_that_everybody_can_read_is_refused(tmp_path):
    path = write_files(tmp_path).path
    (tmp_path / "bob.key").chmod(0o644)
    with pytest.raises(InputError, match=r"bob\.key: readable by everybody; chmod 600"):
        read(path)


def test_a_short_key_is_refused_and_not_shown(tmp_path):
    path = write_files(tmp_path).path
    (tmp_path / "bob.key").write_text("secret")
    with pytest.raises(InputError, match="expected 16 to 256 printable characters") as caught:
        read(path)
    assert "secret" not in str(caught.value).replace("bob.key", "")


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(
    "more",
    ["", "rate: {queries: 20, per: second}\n", "ratelimit_service: 127.0.0.1:8081\n",
     "queries_per_request: 256\n"],
)  # fmt: skip
def test_envoy_itself_takes_every_configuration(tmp_path, tls, more):
    path = write_files(tmp_path, tls=tls, more=more).path
    path.write_text(path.read_text().replace("queries: 100", "queries: 1000"))
    operator = read(path)
    written = write_configuration(operator, UPSTREAM, "s" * 32, tmp_path)
    validate(written)
    assert written.stat().st_mode & 0o077 == 0


def test_envoy_refusing_a_configuration_is_an_error(tmp_path):
    operator = read(write_files(tmp_path).path)
    written = write_configuration(operator, UPSTREAM, "s" * 32, tmp_path)
    written.write_text(written.read_text().replace("stat_prefix: public", "no_such_field: 1"))
    with pytest.raises(GatewayError, match="Envoy refuses its configuration"):
        validate(written)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "0.0.0.0"}, "--address 0.0.0.0: behind a gateway"),  # noqa: S104
        ({"control_mode": "explicit"}, "--model-control-mode explicit: not behind a gateway"),
        ({"supervise": False}, "--no-supervise: a gateway that dies would not come back"),
    ],
)
def test_what_would_open_another_door_is_refused(tmp_path, options, message):
    behind = GatedTriton(write_files(tmp_path).path)
    safe = {"address": "127.0.0.1", "control_mode": "poll", "supervise": True}
    behind.refuse(tmp_path, **safe)
    with pytest.raises(InputError, match=re.escape(message)):
        behind.refuse(tmp_path, **safe | options)
