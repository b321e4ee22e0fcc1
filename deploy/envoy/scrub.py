"""A response filter that takes inner names, paths and secrets out of what Triton says.

Only refusals of the client's own input keep their text, scrubbed; every other failure of Triton's
becomes one sentence. What the gateway says itself is left as it is, but for the time at which
a budget renews.
"""

from collections.abc import Sequence
from typing import Any

from deploy.envoy.counted import NO_LIMIT
from deploy.envoy.replies import OURS, SECONDS
from deploy.envoy.typed import HTTP, named

_LUA = """
local hidden = { %(hidden)s }

local failed = '%(ours)sthe model server failed on this request'

local function scrub(text)
  for _, name in ipairs(hidden) do
    text = string.gsub(text, name, '[inner model]')
  end
  text = string.gsub(text, '[%%w_%%-]+_classifier', '[inner model]')
  text = string.gsub(text, '[%%w_%%-]+_reverse_sigmoid', '[inner model]')
  text = string.gsub(text, '/[%%w_%%.%%-]+/[%%w_%%./%%-]*', '[path]')
  text = string.gsub(text, 'triton[%%w%%-]*key', '[header]')
  return string.sub(text, 1, 1000)
end

local function ours(text)
  return string.sub(text, 1, #'%(ours)s') == '%(ours)s'
end

local function with_seconds(text, headers)
  return (string.gsub(text, '%(seconds)s', headers:get('x-ratelimit-reset') or 'some'))
end

local function unparsed(text)  -- a client's fault that Triton answers with 500
  return string.find(text, '"Unable to parse', 1, true) ~= nil
end

local function clean_grpc(headers)
  local status, message = headers:get('grpc-status'), headers:get('grpc-message')
  if status == nil or status == '0' or message == nil then return end
  if ours(message) then
    message = with_seconds(message, headers)
  elseif status == '3' then
    message = scrub(message)
  else
    message = failed
  end
  headers:replace('grpc-message', message)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get('x-ratelimit-limit') == '%(no_limit)s' then
    for _, name in ipairs({ 'limit', 'remaining', 'reset' }) do
      headers:remove('x-ratelimit-' .. name)
    end
  end
  if headers:get('grpc-status') ~= nil then
    clean_grpc(headers)
    return
  end
  if string.sub(headers:get('content-type') or '', 1, 16) == 'application/grpc' then
    local trailers = handle:trailers()
    if trailers ~= nil then clean_grpc(trailers) end
    return
  end
  local code = tonumber(headers:get(':status'))
  if code == nil or code < 400 then return end
  local body = handle:body()
  if body == nil or body:length() == 0 then return end
  local text = body:getBytes(0, math.min(body:length(), 2000))
  if string.sub(text, 1, 10 + #'%(ours)s') == '{"error":"%(ours)s' then return end
  if code == 400 or unparsed(text) then
    text = scrub(text)
  else
    text = '{"error":"' .. failed .. '"}'
  end
  body:setBytes(text)
end
"""


def scrubber(hidden: Sequence[str]) -> dict[str, Any]:
    """Return the filter; ``hidden`` are names of inner models that do not end as ours do."""
    patterns = ", ".join(f"'{name.replace('-', '%-')}'" for name in hidden)
    code = _LUA % {"ours": OURS, "seconds": SECONDS, "no_limit": NO_LIMIT, "hidden": patterns}
    return named(
        "envoy.filters.http.lua",
        f"{HTTP}.lua.v3.Lua",
        default_source_code={"inline_string": code},
    )
