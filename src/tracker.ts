import { eventType, type Catalog, type EventName, type EventTypeOf, type TagsOf } from './catalog.ts'
import { eventIds } from './event-id.ts'
import { createOutbox, type Recorded, type SyncPost, type Waiter } from './outbox.ts'
import type { KeptEvent, PersistentQueue } from './persistent-queue.ts'
import { isSet } from './runtime.ts'
import { openSource, type Connection, type SupabaseClient } from './source.ts'
import { TrackingError } from './tracking-error.ts'

export { browserQueue } from './browser-queue.ts'
export { defineCatalog, type Catalog, type EventType, type Scope, type TagType, type TagTypes } from './catalog.ts'
export type { KeptEvent, PersistentQueue } from './persistent-queue.ts'
export type { Connection, SupabaseClient } from './source.ts'
export type { Recorded, SyncPost } from './outbox.ts'
export { TrackingError } from './tracking-error.ts'

type Properties = { readonly [name: string]: unknown }

/** What can be said of an event beside its name. */
export type Details<Tags = Properties> = {
  /** The app it is about; becomes `tags.app_id`. */
  app?: string
  /** The organization it is for; the tracker's current group, where the event's kind wants one and none is given. */
  org?: string
  /** Properties of the event that may also describe the person. */
  tags?: Tags
  /** Properties of the event alone; beside the tracker's own. */
  context?: Properties
  /** The family of the event; the catalog's. */
  channel?: string
  /** An emoji for people and sinks; the catalog's. */
  icon?: string
  description?: string
  /** Whether sinks shall notify people; false. */
  notify?: boolean
  /** When it happened; now. A number is in milliseconds since 1970. */
  timestamp?: Date | string | number
  /** An id of one's own, so that the same event from elsewhere is the same row; any id but a UUIDv7 needs a `timestamp`. */
  eventId?: string
  /** Who did it: for the service role alone, anybody else's is ignored. */
  actor?: string
}

/** An event as it is sent: the payload of `track_event`, version 2. */
export type Payload = {
  event: string
  channel?: string
  icon?: string
  description?: string
  notify?: boolean
  tags?: Properties
  nonPersonTags?: Properties
  org_id?: string
  user_id?: string
  tracking_version: 2
  event_id: string
  timestamp?: unknown
}

/** The details of an event that its kind in the catalog asks for. */
export type DetailsOf<C extends Catalog, N extends string> =
  & Omit<Details, 'app' | 'tags'>
  & (EventTypeOf<C, N>['scope'] extends 'app' ? { app: string } : { app?: string })
  & ({} extends TagsOf<C, N> ? { tags?: TagsOf<C, N> } : { tags: TagsOf<C, N> })
type DetailsArgument<C extends Catalog, N extends string> =
  {} extends DetailsOf<C, N> ? [details?: DetailsOf<C, N>] : [details: DetailsOf<C, N>]

export type TrackerOptions<C extends Catalog = Catalog> = {
  /** The kinds of events there are; types `track`, and gives channels, icons and scopes. Without one, anything goes. */
  catalog?: C
  /** So many events are sent at once; 20. */
  flushAt?: number
  /** Fewer are sent after so many milliseconds; 5,000. */
  flushInterval?: number
  /** So many events are held at most; then the oldest go. 10,000. */
  maxQueueSize?: number
  /** So many events are sent in one request at most; 100. The database takes up to 1,000. */
  maxBatchSize?: number
  /** So many milliseconds does an event for an organization wait for `group`; 30,000. */
  groupTimeout?: number
  /** A request that takes more milliseconds has failed; 10,000. */
  requestTimeout?: number
  /** The first wait after a failure lasts up to so many milliseconds, each further one up to twice as many; 1,000. */
  retryDelay?: number
  /** No wait after a failure lasts more milliseconds, but where the server asks for it; 30,000. */
  maxRetryDelay?: number
  /** Sees each event first: returns it, changed or not, or null to drop it. */
  beforeSend?: (event: Payload) => Payload | null
  /** Told of what went wrong: of every event that was dropped, with its payload. Nothing that it does matters here. */
  onError?: (error: TrackingError, event?: Payload) => void
  /** Properties that every event has; read at each `track`, so they may change. */
  context?: Properties
  /** Sends requests; the supabase-js client's own, else the global one. */
  fetch?: typeof fetch
  /** The time in milliseconds since 1970; `Date.now`. */
  clock?: () => number
  /** Keeps events over a crash: `browserQueue()`, or `fileQueue()` of `actorscope/node`. */
  queue?: PersistentQueue
  /** For serverless: is given a promise that ends when what was tracked is delivered, or after 10 seconds. */
  waitUntil?: (work: Promise<unknown>) => void
  /** Nothing is tracked; as with the environment variables DO_NOT_TRACK and ACTORSCOPE_DISABLED. */
  disabled?: boolean
}

/** What became of the events: `tracked + adopted` is the sum of all that follows but `retries`. */
export type Stats = {
  /** Calls of `track` and `trackNow`. */
  tracked: number
  /** Taken over from the persistent queue. */
  adopted: number
  /** To be sent. */
  queued: number
  /** For somebody to sign in, or for `group`. */
  waiting: number
  /** In a request. */
  inFlight: number
  /** Recorded. */
  sent: number
  /** Were recorded already. */
  duplicates: number
  /** Left in the persistent queue, for another time. */
  kept: number
  /** Given up, by code. */
  dropped: Record<string, number>
  /** Requests that failed and were followed by another. */
  retries: number
}

export type Tracker<C extends Catalog = Catalog> = {
  /**
   * Tracks an event: returns at once, never throws. It is sent with others, and again until the database answers;
   * its id and its time are those of this call.
   */
  track<N extends EventName<C>>(event: N, ...details: DetailsArgument<C, N>): void
  /**
   * Tracks an event and awaits the database's answer, up to 4 requests long.
   *
   * @throws {TrackingError} the database's code, `network_error`, `unexpected_answer`, `no_group`, `opted_out`, `before_send` or `closed`.
   */
  trackNow<N extends EventName<C>>(event: N, ...details: DetailsArgument<C, N>): Promise<Recorded>
  /** Sets the organization of events that name none, also of those that wait for one. Null: there is none any more. */
  group(orgId: string | null): void
  /**
   * Resolves when everything tracked so far was delivered or dropped, but for what waits for somebody to sign in or
   * for `group`; never rejects.
   *
   * @param ms gives up after so many milliseconds: requests are aborted, and what is left stays queued
   */
  flush(ms?: number): Promise<Stats>
  /** Sends what is left while the caller waits, through a function that does so: for handlers of a process's exit. */
  flushSync(post: SyncPost): void
  /** Flushes for so many milliseconds, 30,000 by default, and ends the tracker. What is left is dropped (`timeout`), or stays in the persistent queue. */
  shutdown(ms?: number): Promise<Stats>
  /** Drops what is queued and tracks no more; remembered in the persistent queue. */
  optOut(): void
  /** Tracks again. */
  optIn(): void
  stats(): Stats
}

/**
 * Makes a tracker, which sends events through a supabase-js client, or to a project by its URL and keys.
 *
 * @example
 * const tracker = createTracker(supabase)
 * tracker.group(orgId)
 * tracker.track('Report Exported', { tags: { format: 'csv' } })
 */
export function createTracker<const C extends Catalog = Catalog>(
  from: SupabaseClient | Connection, options: TrackerOptions<C> = {},
): Tracker<C> {
  const { catalog, beforeSend, clock = Date.now } = options
  const newId = eventIds()
  const { add, ...tracker } = createOutbox(openSource(from), options.onError, {
    ...options, disabled: options.disabled || isSet('DO_NOT_TRACK') || isSet('ACTORSCOPE_DISABLED') })

  // From here on it is text, and nothing that the caller changes changes it.
  const make = (event: string, details: Details, group: string | null): KeptEvent => {
    const { app, org, tags, context, actor, eventId, timestamp, ...rest } = details
    if ([tags, context].some((one) => typeof (one ?? {}) !== 'object')) throw new TypeError('Tags are an object.')
    const type = catalog && eventType(catalog, event)
    const wantsOrg = !org && type?.scope === 'org'
    const key = newId(+new Date(clock()))
    const at = timestamp == null ? undefined : new Date(timestamp)
    let text = JSON.stringify({
      ...rest,
      event,
      channel: rest.channel ?? type?.channel,
      icon: rest.icon ?? type?.icon,
      tags: app ? { ...tags, app_id: app } : tags,
      nonPersonTags: { ...options.context, ...context },
      org_id: org || ((wantsOrg || !(type || app)) && group) || undefined,
      user_id: actor,
      tracking_version: 2,
      event_id: eventId ?? (at ? newId(+at) : key),
      timestamp: at?.toISOString(),
    } satisfies Payload)
    if (beforeSend) {
      const edited = beforeSend(JSON.parse(text))
      if (!edited) throw new TrackingError('before_send')
      text = JSON.stringify(edited)
    }
    return { key, identity: '', text: storable(text), groupless: wantsOrg && !group }
  }

  const admit = (event: string, details?: Details, waiter?: Waiter) => add((group) => make(event, details ?? {}, group), waiter)
  return {
    ...tracker,
    track: (event: string, details?: Details) => admit(event, details),
    trackNow: (event: string, details?: Details) => new Promise((done, failed) => admit(event, details, { done, failed })),
  } as Tracker<C>
}

// Postgres's jsonb has no place for U+0000 or half a surrogate pair, and would refuse the whole batch for them.
const storable = (json: string) =>
  json.replace(/\\(\\|u0000|ud[89a-f]..)/g, (escape) => escape[1] === 'u' ? '\ufffd' : escape)
