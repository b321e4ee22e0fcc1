"""A request filter that refuses what Triton would not survive: JSON too deep or of huge shapes.

Triton's JSON parser calls itself for every bracket and runs out of stack. So brackets outside of
strings are counted, byte by byte, as a parser would take them: by a table with one row for each
state, which takes every body at the same speed. Where this reading and a parser's could differ,
the text is no JSON, and the parser stops there.

Triton also makes room for all elements of a shape before it looks for their data, so a shape may
not have more elements than bytes were sent. A gRPC request without a message is refused here too.

Only a request that this filter has let pass has ``NESTING`` in its metadata, which the filter of
allowed paths demands: should the Lua fail, the request is refused.
"""

from typing import Any

from deploy.gateway.envoy.replies import REASON
from deploy.gateway.envoy.routes import GUARD
from deploy.gateway.envoy.typed import HTTP, named
from deploy.gateway.operator_file import MIB, Operator

#: Namespace and key of what says that the JSON of a request is shallow.
NESTING = ("gateway.nesting", "shallow")
#: Brackets that may be open at once; a tensor of eight dimensions needs a dozen.
DEEPEST = 64
#: Looked through in some 10 ns a byte by a thread that serves others too.
MOST_JSON = 64 * MIB

#: Shapes in one request, and characters of one: far more than tensors have, few to look through.
MOST_SHAPES, LONGEST_SHAPE = 4096, 1000

_LUA = """
local byte = string.byte

-- States: 0 outside of strings, 256 in one, 512 behind a backslash in one.
local following, step = {}, {}
for b = 0, 255 do
  following[b], following[256 + b], following[512 + b] = 0, 256, 256
  step[b], step[256 + b], step[512 + b] = 0, 0, 0
end
following[34], following[256 + 34], following[256 + 92] = 256, 0, 512
step[91], step[123], step[93], step[125] = 1, 1, -1, -1

local function too_deep(body, length)
  local state, depth = 0, 0
  for first = 0, length - 1, 65536 do
    local count = math.min(65536, length - first)
    local text = body:getBytes(first, count)
    for i = 1, count do
      local at = state + byte(text, i)
      state = following[at]
      depth = depth + step[at]
      if depth > %(deepest)d then return true end
    end
  end
  return false
end

-- Every "shape" is looked at, wherever it stands: a reader may take the first or the last of two.
local function bad_shape(body, length, sent)
  local text = body:getBytes(0, length)
  -- Nobody spells the letters of "shape" so; a reader would take it for that all the same.
  if string.find(text, '\\\\u006[158]') or string.find(text, '\\\\u007[03]') then
    return 'letters are to be sent as they are, not as \\\\u0061 and the like'
  end
  local first, last, count = 1, nil, 0
  while true do
    first, last = string.find(text, '"shape"', first, true)
    if first == nil then return nil end
    first, count = last + 1, count + 1
    if count > %(shapes)d then return 'more than %(shapes)d shapes' end
    if string.find(text, '^%%s*:', first) then  -- else it is no key
      local sizes = string.match(text, '^%%s*:%%s*%%[([%%d%%s,]*)%%]', first)
      if sizes == nil or #sizes > %(longest)d then
        return 'shape: expected a list of whole numbers'
      end
      local elements = 1
      for size in string.gmatch(sizes, '%%d+') do elements = elements * tonumber(size) end
      if elements > sent then return 'a shape has more elements than bytes were sent' end
    end
  end
end

local function refuse(handle, why)
  handle:streamInfo():dynamicMetadata():set('%(refused)s', '%(because)s', why)
  handle:respond({ [':status'] = '400' }, why)
end

function envoy_on_request(handle)
  local headers = handle:headers()  -- before body(), which lets them go
  local path, said = headers:get(':path'), headers:get('inference-header-content-length')
  local body = handle:body()
  local length = body == nil and 0 or body:length()
  if string.sub(path, 1, 4) ~= '/v2/' then
    if length == 0 then return refuse(handle, 'the request has no message') end
    -- Triton begins at the end of the first message: nothing may come behind it, or it would run
    -- while the rest is on its way.
    local size = -1
    if length >= 5 then
      local a, b, c, d = byte(body:getBytes(1, 4), 1, 4)
      size = ((a * 256 + b) * 256 + c) * 256 + d
    end
    if size ~= length - 5 then return refuse(handle, 'expected exactly one message') end
    if handle:trailers() ~= nil then return refuse(handle, 'trailers are not taken') end
    return
  end
  if said ~= nil then  -- the rest is binary
    if not string.find(said, '^%%d+$') or #said > 10 or tonumber(said) > length then
      return refuse(handle, 'inference-header-content-length: expected how many of the '
        .. length .. ' bytes sent are JSON')
    end
    length = tonumber(said)
  end
  if length > %(most)d then
    return refuse(handle, 'more than %(most_mib)d MiB of JSON; send large tensors as binary data')
  end
  if too_deep(body, length) then
    return refuse(handle, 'the JSON is nested deeper than %(deepest)d levels')
  end
  local why = length > 0 and bad_shape(body, length, body:length())
  if length > 1048576 then collectgarbage() end  -- Envoy's bound of memory does not see Lua's
  if why then return refuse(handle, why) end
  handle:streamInfo():dynamicMetadata():set('%(namespace)s', '%(key)s', 'yes')
end
"""


def nesting_guard(operator: Operator) -> dict[str, Any]:
    """Return the filter; it has to stand behind the one that waits for the whole body."""
    most = min(MOST_JSON, operator.limits.request_mib * MIB)
    code = _LUA % {
        "deepest": DEEPEST,
        "most": most,
        "shapes": MOST_SHAPES,
        "longest": LONGEST_SHAPE,
        "most_mib": most // MIB,
        "refused": REASON[0],
        "because": REASON[1],
        "namespace": NESTING[0],
        "key": NESTING[1],
    }
    return named(
        GUARD,
        f"{HTTP}.lua.v3.Lua",
        default_source_code={"inline_string": code},
    )
