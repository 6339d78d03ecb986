import { parseAnswer, post } from './http.ts'
import { openPersons } from './posthog-persons.ts'
import { requireSecret } from './secrets.ts'
import {
  identityOf, isoTime, misconfigured, nobody, readSettings, sift, SinkError,
  type EventRow, type Sink, type SinkContext, type SinkSettings,
} from './sink.ts'

/**
 * Captures events in PostHog (`/batch/`, https://posthog.com/docs/api/capture), with the secret `api_key`, the
 * project's.
 * Settings: `host`, default https://us.i.posthog.com; `set_person_properties`, default true: the tags of an actor's
 * event become properties of the person; `historical_before`, a time: what was received before it is sent as history;
 * `timeout_seconds`, default 30; `project_id` and `app_host`, by which persons are deleted (see `openPersons`).
 *
 * PostHog tells events apart by uuid, name, time and distinct id. All four are the same at every try, and no
 * `sent_at` is sent, which would move the time by how late the try is. An org is introduced by an event
 * `$groupidentify` with its name, ahead of its first event here and of the next one after its name changed.
 */
export function openPostHog(batch: SinkSettings, context: SinkContext): Sink {
  const settings = readSettings(batch, {
    host: 'url', set_person_properties: 'boolean', historical_before: 'time', timeout_seconds: 'seconds',
    project_id: 'text', app_host: 'url' })
  const apiKey = requireSecret(batch, context, 'api_key')
  const url = new URL('batch/', `${(settings.host ?? 'https://us.i.posthog.com').replace(/\/*$/, '')}/`)
  const options: PostHogOptions = {
    setPersonProperties: settings.set_person_properties ?? true,
    historicalBefore: settings.historical_before ? Date.parse(settings.historical_before) : -Infinity,
  }
  const request = async ({ historical, events }: Run, signal: AbortSignal) => {
    const head = `{"api_key":${JSON.stringify(apiKey)},${historical ? '"historical_migration":true,' : ''}`
    const answer = await post(batch, context, {
      url, body: `${head}"batch":[${events.join(',')}]}`, signal,
      timeoutSeconds: settings.timeout_seconds, secrets: [apiKey],
    })
    const nothingStored = faultInAnswer(answer)
    if (nothingStored) throw misconfigured(batch, nothingStored, 200)
  }
  // It may be the org's name that PostHog will not have, or the two together: no event is lost for that.
  const introduceApart = async (announcement: Announcement, historical: boolean, signal: AbortSignal) => {
    const text = JSON.stringify(toGroupIdentify(announcement))
    await request({ historical, events: [text], length: text.length }, signal).catch((error: unknown) => {
      if (!isOfContent(error)) throw error
      const { org_id } = announcement
      context.log('PostHog refuses to be told of an organization', { org_id, error: error.message })
    })
    await confirm(batch, context, [announcement])
  }
  return {
    maxBatch: 1000,
    erase: openPersons(batch, context, settings),
    async send(events, signal) {
      const { sound, undelivered } = sift(events, faultIn)
      if (sound.length === 0) return undelivered
      const announcements = await announce(batch, context, sound)
      const introduced = [...announcements.values()]
      try {
        for (const run of runsOf(sound, announcements, options)) await request(run, signal)
      } catch (error) {
        const [event] = sound
        if (!event || sound.length > 1 || !introduced[0] || !isOfContent(error)) throw error
        await introduceApart(introduced[0], isHistory(event, options), signal)
        for (const run of runsOf(sound, new Map(), options)) await request(run, signal)
        return undelivered
      }
      if (introduced.length > 0) await confirm(batch, context, introduced)
      return undelivered
    },
  }
}

/** Whether something else might have been taken. */
function isOfContent(error: unknown): error is SinkError {
  return error instanceof SinkError && error.kind !== 'retry'
}

// A 200 that stored nothing: a project over its quota is told so in the answer, and a wrong host answers with a page.
function faultInAnswer(answer: string): string | undefined {
  const { status, quota_limited } = parseAnswer(answer) as { status?: unknown, quota_limited?: unknown }
  if (Array.isArray(quota_limited) && quota_limited.includes('events')) return 'is over its quota of events at PostHog'
  if (answer !== '' && status === undefined) return 'is answered by something that is no PostHog'
}

type PostHogOptions = { setPersonProperties: boolean, historicalBefore: number }

/** What PostHog takes: an event of a batch. */
type PostHogEvent = {
  uuid: string
  event: string
  distinct_id: string
  timestamp: string
  properties: Record<string, unknown>
}


// What is never sent --------------------------------------------------------------------------------

// With these a client could merge persons, or rename groups, that are none of its own.
const reservedNames = new Set([
  '$identify', '$create_alias', '$merge_dangerously', '$groupidentify', '$set', '$unset', '$delete',
  '$snapshot', '$snapshot_items',
])
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

// PostHog refuses ids such as "anonymous", "null" or the nil UUID, or worse: makes one person of all who have it.
function faultIn(event: EventRow): string | undefined {
  const id = identityOf(event)
  if (!uuid.test(id) || id === nobody) return `PostHog forbids the distinct id ${JSON.stringify(id)}.`
  if (event.source === 'client' && (reservedNames.has(event.event) || event.event.startsWith('$$'))) {
    return `${JSON.stringify(event.event)} is PostHog's own: a client's event may not have that name.`
  }
}


// Events --------------------------------------------------------------------------------------------

// What PostHog reads in properties that is not a tag's to say.
const reservedProperties = new Set([
  'distinct_id', '$distinct_id', '$anon_distinct_id', '$device_id', 'token', 'api_key', '$token', '$ip',
  '$set', '$set_once', '$unset',
  '$groups', '$group_0', '$group_1', '$group_2', '$group_3', '$group_4', '$group_type', '$group_key', '$group_set',
  '$lib', '$lib_version', '$geoip_disable', '$process_person_profile', '$cookieless_mode', '$ignore_sent_at',
  'capture_internal',
])

/** Properties without those whose names are such; hardly any are, and then nothing is copied. */
function without(properties: Record<string, unknown>, isSuch: (name: string) => boolean): Record<string, unknown> {
  if (!Object.keys(properties).some(isSuch)) return properties
  return Object.fromEntries(Object.entries(properties).filter(([name]) => !isSuch(name)))
}

/** Puts properties together. Spreading takes twenty times as long, but knows that `__proto__` is a name like any. */
function merge(...parts: Record<string, unknown>[]): Record<string, unknown> {
  const isUsual = parts.every((part) => !Object.hasOwn(part, '__proto__'))
  return isUsual ? Object.assign({}, ...parts) : parts.reduce((all, part) => ({ ...all, ...part }), {})
}

const isReserved = (name: string) => reservedProperties.has(name)
const isPostHogs = (name: string) => name.startsWith('$')

/** An event as PostHog gets it. */
function toPostHogEvent(event: EventRow, { setPersonProperties }: PostHogOptions): PostHogEvent {
  const tags = without(event.tags, isReserved)
  const isSomebodys = event.actor_id !== null && event.actor_id !== nobody
  const traits = setPersonProperties && isSomebodys ? without(tags, isPostHogs) : {}
  const own: Record<string, unknown> = { channel: event.channel }
  if (event.description !== null) own.description = event.description
  if (Object.keys(traits).length > 0) own.$set = traits
  if (event.org_id !== null) own.$groups = { organization: event.org_id }
  return {
    uuid: event.event_id,
    event: event.event,
    distinct_id: identityOf(event),
    timestamp: isoTime(event.occurred_at),
    properties: merge(without(event.context, isReserved), tags, own, libraryProperties),
  }
}

// The worker's address is not where anybody is.
const libraryProperties = { $lib: 'actorscope', $geoip_disable: true }

const historyHours = 48

// PostHog wants what is older than 48 hours when it is imported in requests of its own: it is worked on apart, and
// is no spike of today's. How old an event was when it was received is the same at every try; how old it is now is
// not, and an outage of two days would turn live events into history.
function isHistory(event: EventRow, { historicalBefore }: PostHogOptions): boolean {
  const received = Date.parse(event.received_at)
  return received < historicalBefore || received - Date.parse(event.occurred_at) > historyHours * 3_600_000
}


// Groups --------------------------------------------------------------------------------------------

type Announcement = {
  org_id: string
  name: string
  event_id: string
  announced_at: string
  announcement_id: string
}

/** The announcements that go along, by the event that they go ahead of. */
type Announcements = Map<string, Announcement>

const place = (org_id: string | null, event_id: string) => `${org_id} ${event_id}`

async function announce(
  { sink }: SinkSettings, { sql }: SinkContext, events: EventRow[],
): Promise<Announcements> {
  const grouped = events.filter(({ org_id }) => org_id !== null)
  if (grouped.length === 0) return new Map()
  const announcements = await sql<Announcement[]>`
    select org_id, name, event_id, to_json(announced_at) #>> '{}' as announced_at, announcement_id
    from   tracking.announce_orgs(
             ${sink}, ${grouped.map(({ org_id }) => org_id!)}::uuid[],
             ${grouped.map(({ event_id }) => event_id)}::uuid[],
             ${grouped.map(({ occurred_at }) => occurred_at)}::timestamptz[])`
  return new Map(announcements.map((one) => [place(one.org_id, one.event_id), one]))
}

async function confirm({ sink }: SinkSettings, { sql }: SinkContext, announcements: Announcement[]): Promise<void> {
  await sql`select tracking.confirm_orgs(${sink}, ${announcements.map(({ org_id }) => org_id)}::uuid[])`
}

function toGroupIdentify({ org_id, name, announced_at, announcement_id }: Announcement): PostHogEvent {
  return {
    uuid: announcement_id,
    event: '$groupidentify',
    distinct_id: `$organization_${org_id}`,
    timestamp: isoTime(announced_at),
    properties: { $group_type: 'organization', $group_key: org_id, $group_set: { name }, ...libraryProperties },
  }
}


// Requests ------------------------------------------------------------------------------------------

/** What goes in one request: events as JSON, all of them history or none. */
type Run = { historical: boolean, events: string[], length: number }

// PostHog takes 20 MB a request.
const maxLength = 5_000_000

/** Cuts a batch into requests. Nothing changes places. */
function runsOf(events: EventRow[], announcements: Announcements, options: PostHogOptions): Run[] {
  const runs: Run[] = []
  for (const event of events) {
    const historical = isHistory(event, options)
    const announcement = announcements.get(place(event.org_id, event.event_id))
    let run = runs.at(-1)
    if (!run || run.historical !== historical || run.length > maxLength) {
      runs.push(run = { historical, events: [], length: 0 })
    }
    for (const one of [...announcement ? [toGroupIdentify(announcement)] : [], toPostHogEvent(event, options)]) {
      const text = JSON.stringify(one)
      run.events.push(text)
      run.length += text.length
    }
  }
  return runs
}
