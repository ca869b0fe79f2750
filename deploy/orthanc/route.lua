-- Films go to melo, which sends reports and heat maps back; what comes from there goes nowhere.
local FILMS = { CR = true, DX = true }
-- What could not be sent is tried again for so many days.
local DAYS = 7

function OnStoredInstance(instanceId, tags, metadata, origin)
  if FILMS[tags['Modality']] and origin['RemoteAet'] ~= 'MELO' then
    -- A job that fails where this fails, as those of SendToModality do not.
    RestApiPost('/modalities/melo/store', DumpJson({ Resources = { instanceId }, Synchronous = false }))
  end
end

-- Every LuaHeartBeatPeriod seconds: what failed while melo was away, or full, is sent again.
function OnHeartBeat()
  local since = os.date('!%Y%m%dT%H%M%S', os.time() - DAYS * 24 * 3600)
  for _, job in ipairs(ParseJson(RestApiGet('/jobs?expand'))) do
    local failed = job['Type'] == 'DicomModalityStore' and job['State'] == 'Failure'
    if failed and job['Content']['RemoteAet'] == 'MELO' and job['CreationTime'] > since then
      RestApiPost('/jobs/' .. job['ID'] .. '/resubmit', '')
    end
  end
end
