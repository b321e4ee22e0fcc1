"""A response filter that lets through of Triton's errors only what tells nothing.

Kept are sentences that Triton itself begins so, about the request as it was sent: names, types,
shapes, counts. Whatever a step of a model says, with its name and the names of its tensors in it,
becomes one sentence, and any other failure another. What the gateway says itself is left as it
is, except for the time at which a budget renews.

Long texts are not looked at, and the patterns begin at one place: the time that this takes does not
grow with what a client made Triton repeat.
"""

from collections.abc import Sequence
from typing import Any

from deploy.gateway.envoy.replies import OURS, SECONDS
from deploy.gateway.envoy.typed import HTTP, named

#: How Triton begins what it says about a request before any model has seen it: Lua patterns.
ABOUT_THE_REQUEST = (
    "Unable to parse ",
    "failed to parse the request JSON buffer",
    "inference header size should be in range",
    "must specify valid 'Infer",
    "unexpected size for ",
    "unexpected additional input data for model '",
    "unexpected explicit tensor data for input tensor '",
    "unexpected inference input '",
    "unexpected inference output '",
    "unexpected shape for input '",
    "unexpected number of string elements %d+ for inference input '",
    "incomplete string length indicator for inference input '",
    "unable to find data for input tensor '",
    "contents field must not be specified when using raw_input_contents",
    "inference request batch%-size must be <= ",
    "inference input '[^']*' data%-type is '",
    "input '[^']*' already exists in request",
    "input '[^']*' has no shape but model requires batch dimension",
    "input '[^']*' batch size does not match other inputs",
    "input byte size mismatch for input '",
    "output '[^']*' already exists in request",
    "expected %d+ inputs but got %d+ inputs for model '",
    "expected number of inputs between %d+ and %d+ but got",
    "expected %d+ string elements for inference input '",
    "expected %d+ buffers for inference input '",
    "All input dimensions should be specified for input '",
    "receiving B?F?P?16 data via JSON is not supported",
    "invalid datatype for input ",
    "invalid value type for '",
    "invalid value for '",
    "parameter '[^']*' has invalid type",
    "parameter keys starting with 'triton_' are reserved",
)
#: What protect calls the models behind a public one.
INNER = ("_classifier'", "_reverse_sigmoid'")
#: Longer errors are not read: the longest of Triton's, with names of a usual length.
LONGEST = 2000

_LUA = """
local kept = { %(kept)s }
local hidden = { %(hidden)s }

local failed = '%(ours)sthe model server failed on this request'
local unfit = '%(ours)sthe model refused this input; see its metadata for names, types and shapes, '
  .. 'and send finite numbers'

local function begins(text, with)
  return string.sub(text, 1, #with) == with
end

local function about_the_request(text)
  if #text > %(longest)d then return false end
  local said = string.match(text, '^%%[request id: [^%%[%%]]*%%] (.*)$')
  -- An identifier with a bracket may pretend to be the rest: then Triton's own comes later.
  if said and string.find(said, '] ', 1, true) then return false end
  said = said or text
  for _, name in ipairs(hidden) do
    if string.find(text, name, 1, true) then return false end
  end
  for _, beginning in ipairs(kept) do
    if string.find(said, beginning) then return true end
  end
  return false
end

local function clean_grpc(headers)
  local status, message = headers:get('grpc-status'), headers:get('grpc-message')
  if status == nil or status == '0' or message == nil then return end
  if begins(message, '%(ours)s') then
    if not string.find(message, '%(seconds)s', 1, true) then return end
    local seconds = headers:get('x-ratelimit-reset') or 'some'
    message = string.gsub(message, '%(seconds)s', seconds)
  elseif status ~= '3' then
    message = failed
  elseif about_the_request(message) then
    return
  else
    message = unfit
  end
  headers:replace('grpc-message', message)
end

local function clean_http(handle, headers, code)
  local body = handle:body()
  if body == nil or body:length() == 0 then return end
  local text = body:getBytes(0, math.min(body:length(), %(longest)d + 1))
  if begins(text, '{"error":"%(ours)s') then return end
  local said = failed
  if code == 400 or code == 500 then  -- Triton answers 500 to what it cannot read, too
    if about_the_request(string.match(text, '^{"error":"(.*)') or '') then return end
    if code == 400 then said = unfit end
  end
  body:setBytes('{"error":"' .. said .. '"}')
  headers:remove('content-encoding')
  headers:replace('content-type', 'application/json')
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get('grpc-status') ~= nil then
    clean_grpc(headers)
    return
  end
  if begins(headers:get('content-type') or '', 'application/grpc') then
    local trailers = handle:trailers()
    if trailers ~= nil then clean_grpc(trailers) end
    return
  end
  local code = tonumber(headers:get(':status'))
  if code ~= nil and code >= 400 then clean_http(handle, headers, code) end
end
"""


def scrubber(hidden: Sequence[str]) -> dict[str, Any]:
    """Return the filter; ``hidden`` are names of inner models and tensors."""
    code = _LUA % {
        "kept": _strings([f"^{beginning}" for beginning in ABOUT_THE_REQUEST]),
        # In quotes, as Triton writes them: a tensor may be called as any word is.
        "hidden": _strings([*INNER, *(f"'{name}'" for name in hidden)]),
        "longest": LONGEST,
        "ours": OURS,
        "seconds": SECONDS,
    }
    return named(
        "envoy.filters.http.lua",
        f"{HTTP}.lua.v3.Lua",
        default_source_code={"inline_string": code},
    )


def _strings(texts: Sequence[str]) -> str:
    """Return them as a list of Lua's, each byte that could end one as its number."""
    safe = (
        "".join(chr(b) if chr(b).isalnum() or chr(b) in " _-" else f"\\{b:03d}" for b in text)
        for text in (one.encode() for one in texts)
    )
    return ", ".join(f"'{text}'" for text in safe)
