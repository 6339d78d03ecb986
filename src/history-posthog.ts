import type { Content } from './history-rows.ts'
import { membersOf, objectOf, setMember, type Members } from './json.ts'

/**
 * Reads an event as PostHog exports it (https://posthog.com/docs/cdp/batch-exports, and `select * from events`):
 * uuid, event, distinct_id, timestamp, properties.
 *
 * What PostHog itself made of persons, groups, flags and recordings is passed over. Properties of its own, which begin
 * with `$`, become context where they tell of the page or the device, and are left out where they do not; all others
 * are tags. An event that has a channel was sent there by this pipeline, or by the one before it, with a description.
 */
export function fromPostHog(row: Members, groupType: string): Content {
  const event = stringIn(row.get('event'))
  if (event !== undefined && isInternal(event)) return { passedOver: event }
  const properties = membersIn(row.get('properties'))
  const { tags, context } = sortOut(properties)
  const payload: Members = new Map()
  setMember(payload, 'event', row.get('event'))
  setMember(payload, 'event_id', row.get('uuid'))
  setMember(payload, 'timestamp', row.get('timestamp'))
  setMember(payload, 'user_id', row.get('distinct_id'))
  setMember(payload, 'actor_id', properties.get('$user_id'))
  setMember(payload, 'org_id', groupIn(properties, groupType) ?? properties.get('org_id'))
  if (isText(tags.get('channel'), 100)) {
    take(payload, 'channel', tags)
    if (isText(tags.get('description'), 4000)) take(payload, 'description', tags)
  }
  payload.set('tags', objectOf(tags))
  payload.set('nonPersonTags', objectOf(context))
  return { payload }
}

/** Events that tell of PostHog's persons, groups, flags and recordings, and of nothing that anybody did. */
const internal = new Set([
  '$identify', '$create_alias', '$merge_dangerously', '$set', '$unset', '$delete', '$groupidentify', '$feature_flag_called',
  '$snapshot', '$snapshot_items', '$performance_event', '$web_vitals', '$opt_in',
])

const isInternal = (event: string): boolean => internal.has(event) || event.startsWith('$$')

/** Properties of PostHog's own that tell of the page or the device. */
const ofTheEvent = new Set([
  '$current_url', '$host', '$pathname', '$title', '$referrer', '$referring_domain', '$screen_name', '$event_type',
  '$browser', '$browser_version', '$browser_language', '$os', '$os_name', '$os_version', '$locale', '$timezone',
  '$device_type', '$device_model', '$device_manufacturer',
  '$screen_width', '$screen_height', '$viewport_width', '$viewport_height',
  '$app_name', '$app_namespace', '$app_version', '$app_build', '$session_id', '$window_id',
])

const ofPostHog = new Set(['distinct_id', 'token', 'api_key'])

function sortOut(properties: Members): { tags: Members, context: Members } {
  const tags: Members = new Map()
  const context: Members = new Map()
  for (const [name, value] of properties) {
    if (ofTheEvent.has(name)) context.set(name, value)
    else if (!name.startsWith('$') && !ofPostHog.has(name)) tags.set(name, value)
  }
  return { tags, context }
}

function take(payload: Members, name: string, tags: Members): void {
  setMember(payload, name, tags.get(name))
  tags.delete(name)
}

/** The group of that type; else the only one; else the first of the project's types. */
function groupIn(properties: Members, groupType: string): string | undefined {
  const groups = membersIn(properties.get('$groups'))
  const only = groups.size === 1 ? [...groups.values()][0] : undefined
  return groups.get(groupType) ?? only ?? properties.get('$group_0')
}

/** The members of a JSON object; or of one that is the text of a JSON string, as files of columns have it. */
function membersIn(json: string | undefined): Members {
  if (json?.startsWith('{')) return membersOf(json)
  const text = stringIn(json)
  return text?.startsWith('{') ? membersOf(text) : new Map()
}

const stringIn = (json: string | undefined): string | undefined =>
  (json?.startsWith('"') ? JSON.parse(json) as string : undefined)

function isText(json: string | undefined, most: number): boolean {
  const text = stringIn(json)
  return text !== undefined && text.trim() !== '' && text.length <= most
}
