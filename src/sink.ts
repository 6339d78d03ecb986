import type { Buffer } from 'node:buffer'
import type { Sql } from 'postgres'

/** A row of public.events, as `tracking.lease_batch` gives it; times are ISO 8601 in UTC. */
export type EventRow = {
  scope_id: string
  occurred_at: string
  event_id: string
  org_id: string | null
  actor_id: string | null
  app_id: string | null
  api_key_id: string | null
  event: string
  channel: string
  description: string | null
  icon: string | null
  parser: string | null
  notify: boolean
  tags: Record<string, unknown>
  context: Record<string, unknown>
  tracking_version: number
  source: 'client' | 'service' | 'trigger'
  clock_skew: string | null
  received_at: string
  txid: string
  epoch: number
}

/** An event of the log, as the database wrote it: a sink that hands it on as it is need not read it. */
export class LoggedEvent {
  private read?: EventRow

  /** @param json the row as JSON, on one line. */
  constructor(readonly json: Buffer) {}

  /** The row; it is parsed when somebody first asks. */
  get row(): EventRow {
    return this.read ??= JSON.parse(this.json.toString()) as EventRow
  }
}

/** An event that can never be delivered as it is, and why; what `tracking.complete_batch` keeps. */
export type Undelivered = { event: LoggedEvent, error: string }

/** Somewhere that events are sent. */
export type Sink = {
  /** How many events to send at once, at most. */
  readonly maxBatch: number
  /**
   * Sends events, in order.
   *
   * @returns the events that were not sent, because the sink knows that they never can be; all others were taken.
   * @throws {SinkError} where it is not certain that the vendor took them all. Sending the same again is right:
   * whoever receives them knows events by their id. Errors of another kind are the database's; try again.
   */
  send(events: LoggedEvent[], signal: AbortSignal): Promise<Undelivered[]>
  /**
   * Has the vendor forget somebody whom it was sent. May be asked again, where the answer was lost.
   *
   * @throws {SinkError} where it did not take that on, and is to be told later.
   */
  erase?(whom: Erased, signal: AbortSignal): Promise<Notice>
  close?(): Promise<void>
}

/** Somebody who was erased, and is to be forgotten elsewhere. */
export type Erased = {
  /** Names the erasure: the same at every try. */
  erasure: string
  subject: 'actor' | 'org'
  id: string
  /** The person's address, as far as it was known. */
  email: string | null
  /** When nothing was left of them here; ISO 8601. */
  erased_at: string
}

/** What came of telling a sink of it, and what there is to say about that. */
export type Notice = { outcome: 'told' | 'impossible', detail: string }

/** What a sink is made from: part of what `tracking.lease_batch` answers. */
export type SinkSettings = { sink: string, kind: string, settings: Record<string, unknown> }

/** What a sink needs of whoever runs it. */
export type SinkContext = {
  /** A secret of the sink by its name, such as `api_key`; undefined where there is none. See `loadSecrets`. */
  secret(name: string): string | undefined
  fetch: typeof fetch
  /** The database, with the rights of the service role. */
  sql: Sql
  log(message: string, fields?: Record<string, unknown>): void
}

/**
 * Why events were not taken:
 * `retry`, the same may be sent again later (network, 408, 429, 5xx, or the sink is not set up rightly);
 * `too_large`, fewer at once may pass (413);
 * `refused`, never again as it is (other 4xx): one of them is bad, and sending fewer finds it.
 */
export type SinkErrorKind = 'retry' | 'too_large' | 'refused'

type SinkErrorOptions = ErrorOptions & { status?: number, retryAfterMs?: number }

/** A failure to send. Its message holds no secret of the sink. */
export class SinkError extends Error {
  override readonly name = 'SinkError'
  /** The HTTP status, where there was an answer. */
  readonly status?: number
  /** Not to be tried again before so many milliseconds have passed. */
  readonly retryAfterMs?: number

  constructor(readonly kind: SinkErrorKind, message: string, options: SinkErrorOptions = {}) {
    super(message, options)
    this.status = options.status
    this.retryAfterMs = options.retryAfterMs
  }
}

/** How long a sink waits that is not set up rightly: nothing but somebody's doing can help it. */
const misconfiguredPauseMs = 5 * 60_000

/** The error of a sink that is not set up rightly. */
export function misconfigured({ sink }: SinkSettings, what: string, status?: number): SinkError {
  const message = `The sink ${JSON.stringify(sink)} ${what}.`
  return new SinkError('retry', message, { status, retryAfterMs: misconfiguredPauseMs })
}

/** Who asked for a build and was erased. */
export const nobody = '00000000-0000-0000-0000-000000000000'

/**
 * Whom an event is by, for sinks that know one identity: the actor; the org for a service's event without one, and for
 * what becomes of the build of somebody who was erased; and the org for an event of version 1 that named one, as version
 * 1 meant it.
 */
export function identityOf({ tracking_version, org_id, actor_id, scope_id }: EventRow): string {
  return (tracking_version === 1 ? org_id : null) ?? (actor_id === nobody ? org_id : actor_id) ?? scope_id
}

/** A time as every vendor takes it: `2026-11-05T09:30:00.123Z`. */
export function isoTime(time: string): string {
  return new Date(time).toISOString()
}

/** Reads events: the rows of those that a sink can send, and those that it never can, with what is wrong with each. */
export function sift(
  events: LoggedEvent[], faultIn: (row: EventRow) => string | undefined,
): { sound: EventRow[], undelivered: Undelivered[] } {
  const sound: EventRow[] = []
  const undelivered: Undelivered[] = []
  for (const event of events) {
    const error = faultIn(event.row)
    if (error === undefined) sound.push(event.row)
    else undelivered.push({ event, error })
  }
  return { sound, undelivered }
}


// Settings ------------------------------------------------------------------------------------------

type SettingType = 'url' | 'text' | 'boolean' | 'count' | 'seconds' | 'time'
type SettingValue = { url: string, text: string, boolean: boolean, count: number, seconds: number, time: string }
type Declared<T extends Record<string, SettingType>> = { [name in keyof T]?: SettingValue[T[name]] }

const settingTypes: Record<SettingType, { is: (value: unknown) => boolean, means: string }> = {
  url: { is: isPlainUrl, means: 'an http(s) URL without a login' },
  text: { is: (value) => typeof value === 'string' && value !== '', means: 'a text' },
  boolean: { is: (value) => typeof value === 'boolean', means: 'true or false' },
  count: { is: (value) => Number.isSafeInteger(value) && Number(value) > 0, means: 'a whole number from 1' },
  seconds: {
    is: (value) => typeof value === 'number' && value > 0 && value <= 3600, means: 'a number of seconds up to 3600' },
  time: { is: isIsoTime, means: 'an ISO 8601 time' },
}

function isPlainUrl(value: unknown): boolean {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, username, password } = new URL(value)
  return /^https?:$/.test(protocol) && !username && !password
}

function isIsoTime(value: unknown): boolean {
  return typeof value === 'string' && /^\d{4}-\d\d-\d\d/.test(value) && !Number.isNaN(Date.parse(value))
}

/**
 * Reads the settings of a sink; null counts as absent.
 *
 * @throws {SinkError} where one is unknown or of another type than declared.
 */
export function readSettings<T extends Record<string, SettingType>>(batch: SinkSettings, declared: T): Declared<T> {
  for (const [name, value] of Object.entries(batch.settings)) {
    if (!Object.hasOwn(declared, name)) {
      const known = Object.keys(declared).join(', ')
      throw misconfigured(batch, `has the unknown setting ${JSON.stringify(name)}; it may have ${known}`)
    }
    const { is, means } = settingTypes[declared[name]!]
    if (value !== null && !is(value)) throw misconfigured(batch, `has a wrong setting: ${name} must be ${means}`)
  }
  return Object.fromEntries(Object.entries(batch.settings).filter(([, value]) => value !== null)) as Declared<T>
}
