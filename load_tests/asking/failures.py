"""What a failed call says, in one line: Triton's own words, and TLS that does not fit in ours."""

from typing import Any

#: What gRPC says where the two ends disagree about TLS, and what that comes from.
_OF_TLS = (
    (("certificate has expired",), "the server's certificate has expired; renew it there"),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "the server's certificate is signed by nobody in --tls-ca; give the certificate of the "
        "authority that signed it, or the server's own where it signed itself",
    ),
    (
        ("Hostname Verification Check failed",),
        "the server's certificate is for another name; connect by one that it holds, or have it "
        "made with a subjectAltName of this one",
    ),
    (("WRONG_VERSION_NUMBER",), "the server speaks no TLS; leave --tls-ca out"),
    (
        ("failed to connect", "Socket closed"),
        "the server hangs up on whoever speaks no TLS, or no gRPC; where it speaks TLS give "
        "--tls-ca, the certificate to trust",
    ),
)


def tls_misfit(said: str) -> str | None:
    """Return what is wrong with TLS, where that is why a connection was not made."""
    return next((why for signs, why in _OF_TLS if all(sign in said for sign in signs)), None)


def said_by(error: Any) -> str:
    """Return what an InferenceServerException says, without line breaks."""
    said = " ".join(str(error.message()).removeprefix("[request id: <id_unknown>] ").split())
    return tls_misfit(said) or said
