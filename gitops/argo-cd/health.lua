-- Health of an OtelAgent for Argo CD. It says the same as kstatus: see docs/gitops.md.
local function health(status, condition)
  return { status = status, message = condition.reason .. ": " .. condition.message }
end

local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end

if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not acted on this spec yet" }
end
if found.Stalled and found.Stalled.status == "True" then
  return health("Degraded", found.Stalled)
end
if found.Reconciling and found.Reconciling.status == "True" then
  return health("Progressing", found.Reconciling)
end
if not found.Ready then
  return { status = "Progressing", message = "the operator has not reported yet" }
end
if found.Ready.status == "True" then
  return health("Healthy", found.Ready)
end
return health("Progressing", found.Ready)
