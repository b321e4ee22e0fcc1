"""What is said where a client and a server disagree about TLS: real gRPC at both ends."""

import contextlib
import datetime
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import trustme
from commands import run_command

from load_tests.asking.endpoint import Access, Endpoint, EndpointError
from postprocess.errors import InputError

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
OURS, OTHER = trustme.CA(), trustme.CA()
CERTIFICATES = {
    "good": OURS.issue_cert("127.0.0.1"),
    "expired": OURS.issue_cert("127.0.0.1", not_after=LONG_AGO),
    "elsewhere": OURS.issue_cert("gateway.example"),
}


@contextlib.contextmanager
def listening(certificate):
    """Give the port of a server of no models that has a certificate, or speaks no TLS."""
    server = grpc.server(ThreadPoolExecutor(1))
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        held = CERTIFICATES[certificate]
        chain = b"".join(one.bytes() for one in held.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(held.private_key_pem.bytes(), chain)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("certificate", "trusted", "said"),
    [
        ("good", OTHER, "the server's certificate is signed by nobody in --tls-ca; give the"),
        ("expired", OURS, "the server's certificate has expired; renew it there"),
        ("elsewhere", OURS, "the server's certificate is for another name; connect by one that"),
        ("good", None, "the server hangs up on whoever speaks no TLS, or no gRPC; where it"),
        (None, OURS, "the server speaks no TLS; leave --tls-ca out"),
        ("good", OURS, "[StatusCode.UNIMPLEMENTED] Method not found!"),
        (None, None, "[StatusCode.UNIMPLEMENTED] Method not found!"),
    ],
)
def test_tls_that_does_not_fit_is_said_with_the_way_out(tmp_path, certificate, trusted, said):
    path = tmp_path / "ca.pem" if trusted else None
    if trusted:
        trusted.cert_pem.write_to_path(path)
    with listening(certificate) as port, pytest.raises(EndpointError) as refused:
        Endpoint(f"127.0.0.1:{port}", "digits", access=Access(tls_ca=path))
    assert str(refused.value).startswith(f"127.0.0.1:{port}, model digits: {said}")


def test_of_a_failed_handshake_grpc_prints_nothing_beside_the_error(tmp_path):
    with listening("good") as port:
        OTHER.cert_pem.write_to_path(tmp_path / "ca.pem")
        asked = ("--url", f"127.0.0.1:{port}", "--public", "digits", "--tls-ca", "ca.pem")
        done = run_command("audit", *asked, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"reverse-sigmoid: 127.0.0.1:{port}, model digits: the server's certificate is signed by "
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"), [("", "expected certificates in PEM"), (None, "No such file or directory")]
)
def test_a_file_of_no_certificates_is_refused_before_anything_is_sent(tmp_path, content, said):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as refused:
        Endpoint("127.0.0.1:1", "digits", access=Access(tls_ca=path))
    assert str(refused.value) == f"--tls-ca {path}: {said}"
