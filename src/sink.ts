import type { Sql } from 'postgres'
import { openBento } from './bento.ts'
import { openLogSnag } from './logsnag.ts'
import { openNdjson } from './ndjson.ts'
import { openPostHog } from './posthog.ts'
import { openWebhook } from './webhook.ts'

/** A row of public.events, as `tracking.lease_batch` gives it; times are ISO 8601 in UTC. */
export type LoggedEvent = {
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
  close?(): Promise<void>
}

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

/** A failure to send. Its message holds no secret of the sink. */
export class SinkError extends Error {
  override readonly name = 'SinkError'
  /** The HTTP status, where there was an answer. */
  readonly status?: number
  /** Not to be tried again before so many milliseconds have passed. */
  readonly retryAfterMs?: number

  constructor(readonly kind: SinkErrorKind, message: string, options: ErrorOptions & { status?: number, retryAfterMs?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.status = options.status
    this.retryAfterMs = options.retryAfterMs
  }
}

const openers: Record<string, (batch: SinkSettings, context: SinkContext) => Sink> = {
  posthog: openPostHog, logsnag: openLogSnag, bento: openBento, webhook: openWebhook, ndjson: openNdjson,
}

/**
 * Makes the sink of a kind from its settings and its secrets.
 *
 * @throws {SinkError} `retry`, where a setting or a secret is missing or wrong: its events wait until that is put right.
 */
export function openSink(batch: SinkSettings, context: SinkContext): Sink {
  const open = openers[batch.kind]
  if (!open) throw misconfigured(batch, `is of the unknown kind ${JSON.stringify(batch.kind)}`)
  return open(batch, context)
}

/** How long a sink waits that is not set up rightly: nothing but somebody's doing can help it. */
export const misconfiguredPauseMs = 5 * 60_000

/** The error of a sink that is not set up rightly. */
export function misconfigured({ sink }: SinkSettings, what: string, options: ErrorOptions & { status?: number } = {}): SinkError {
  return new SinkError('retry', `The sink ${JSON.stringify(sink)} ${what}.`, { ...options, retryAfterMs: misconfiguredPauseMs })
}

/**
 * Whom an event is by, for sinks that know one identity: the actor; the org for a service's event without one; and
 * the org for an event of version 1 that named one, as version 1 meant it.
 */
export function identityOf({ tracking_version, org_id, actor_id, scope_id }: LoggedEvent): string {
  return (tracking_version === 1 ? org_id : null) ?? actor_id ?? scope_id
}

/** A time as every vendor takes it: `2026-11-05T09:30:00.123Z`. */
export function isoTime(time: string): string {
  return new Date(time).toISOString()
}


// Settings and secrets ------------------------------------------------------------------------------

type SettingType = 'url' | 'text' | 'boolean' | 'seconds' | 'time'
type SettingValue = { url: string, text: string, boolean: boolean, seconds: number, time: string }
type Declared<T extends Record<string, SettingType>> = { [name in keyof T]?: SettingValue[T[name]] }

const settingTypes: Record<SettingType, { is: (value: unknown) => boolean, means: string }> = {
  url: { is: isPlainUrl, means: 'an http(s) URL without a login' },
  text: { is: (value) => typeof value === 'string' && value !== '', means: 'a text' },
  boolean: { is: (value) => typeof value === 'boolean', means: 'true or false' },
  seconds: { is: (value) => typeof value === 'number' && value > 0 && value <= 3600, means: 'a number of seconds up to 3600' },
  time: { is: (value) => typeof value === 'string' && /^\d{4}-\d\d-\d\d/.test(value) && !Number.isNaN(Date.parse(value)), means: 'an ISO 8601 time' },
}

function isPlainUrl(value: unknown): boolean {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, username, password } = new URL(value)
  return /^https?:$/.test(protocol) && !username && !password
}

/**
 * Reads the settings of a sink; null counts as absent.
 *
 * @throws {SinkError} where one is unknown or of another type than declared.
 */
export function readSettings<T extends Record<string, SettingType>>(batch: SinkSettings, declared: T): Declared<T> {
  for (const [name, value] of Object.entries(batch.settings)) {
    const type = settingTypes[declared[name] as SettingType] as (typeof settingTypes)[SettingType] | undefined
    if (!type) throw misconfigured(batch, `has the unknown setting ${JSON.stringify(name)}; it may have ${Object.keys(declared).join(', ')}`)
    if (value !== null && !type.is(value)) throw misconfigured(batch, `has a wrong setting: ${name} must be ${type.means}`)
  }
  return Object.fromEntries(Object.entries(batch.settings).filter(([, value]) => value !== null)) as Declared<T>
}

/** The environment variable, or name in the Vault, of a sink's own secret: `ACTORSCOPE_SINK_POSTHOG_EU_API_KEY`. */
export function secretName(sink: string, secret: string): string {
  return `ACTORSCOPE_SINK_${sink}_${secret}`.toUpperCase().replaceAll('-', '_')
}

/** The name that a vendor's secret usually has, such as `POSTHOG_API_KEY`. A webhook has none: each has its own. */
export function usualSecretName(kind: string, secret: string): string | undefined {
  return kind === 'webhook' ? undefined : `${kind}_${secret}`.toUpperCase()
}

/** @throws {SinkError} where the sink has no such secret. */
export function requireSecret(batch: SinkSettings, context: SinkContext, name: string): string {
  const secret = context.secret(name)
  if (secret) return secret
  const names = [secretName(batch.sink, name), usualSecretName(batch.kind, name)].filter(Boolean).join(' or ')
  throw misconfigured(batch, `has no ${name}: put it into the worker's environment, or into Supabase's Vault, as ${names}`)
}


// HTTP ----------------------------------------------------------------------------------------------

/** How the sinks introduce themselves. */
export const userAgent = 'actorscope/0.1.0'

/** What a request to a vendor is made of. */
export type Post = {
  url: string | URL
  headers: Record<string, string>
  /** JSON. */
  body: string
  /** Ends the request early. */
  signal: AbortSignal
  /** For the answer to be there, whole; default 30. */
  timeoutSeconds?: number
  /** What must appear in no error, such as a key that the vendor's answer repeats. */
  secrets: string[]
  /** Statuses that speak of the sink and not of what was sent; the default says why. */
  sinkStatuses?: number[]
}

/**
 * A wrong key, an unpaid bill, a wrong URL: no event is to blame, and all of them would be refused. They wait.
 * 403 is not among them: a firewall says it of one bad text among good ones, and that must not stop the rest.
 */
const usualSinkStatuses = [401, 402, 404, 405, 410]

/**
 * Posts JSON to a vendor. Redirects are not followed: a key does not go where nobody sent it.
 *
 * @returns the answer's text, at most 16 KB of it.
 * @throws {SinkError} for every outcome but 2xx.
 */
export async function post(batch: SinkSettings, context: SinkContext, request: Post): Promise<string> {
  const seconds = request.timeoutSeconds ?? 30
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(seconds * 1000)])
  const say = (text: string) => redact(text, request.secrets).slice(0, 500)
  const response = await context.fetch(request.url, {
    method: 'POST', headers: { 'user-agent': userAgent, 'content-type': 'application/json', ...request.headers },
    body: request.body, redirect: 'manual', signal,
  }).catch((error: unknown) => { throw unreached(error) })
  const text = await readText(response).catch((error: unknown) => { throw unreached(error) })
  if (response.ok) return text
  throw refusal(response, say(`${response.status} ${text.trim() || response.statusText}`))

  function unreached(error: unknown): SinkError {
    if (request.signal.aborted) return new SinkError('retry', 'The request was stopped.')
    if (signal.aborted) return new SinkError('retry', `There was no answer within ${seconds} seconds.`)
    return new SinkError('retry', say(reasonOf(error)))
  }

  function refusal({ status, headers }: Response, message: string): SinkError {
    if (status === 413) return new SinkError('too_large', message, { status })
    if (status < 400 || (request.sinkStatuses ?? usualSinkStatuses).includes(status)) {
      return misconfigured(batch, `is turned away: ${message}`, { status })
    }
    if (status === 408 || status === 425 || status === 429 || status >= 500) {
      return new SinkError('retry', message, { status, retryAfterMs: parseRetryAfter(headers.get('retry-after')) })
    }
    return new SinkError('refused', message, { status })
  }
}

// fetch says "fetch failed", and only its cause says why.
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error & { cause?: { code?: string, message?: string } }
  return [message, cause?.code ?? cause?.message].filter(Boolean).join(': ')
}

const maxAnswer = 16 * 1024

async function readText(response: Response): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true })
    if (text.length >= maxAnswer) break
  }
  return text.slice(0, maxAnswer)
}

/** The JSON object that a vendor answered with; an empty one where it was none. */
export function parseAnswer(text: string): object {
  try {
    const answer: unknown = JSON.parse(text)
    return typeof answer === 'object' && answer !== null ? answer : {}
  } catch {
    return {}
  }
}

/** Takes secrets out of a text: as they are, and as they look in JSON or in an URL. */
export function redact(text: string, secrets: string[]): string {
  return secrets.filter(Boolean)
    .flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret)])
    .reduce((redacted, secret) => redacted.replaceAll(secret, '***'), text)
}

/**
 * How long a `Retry-After` asks to wait, in seconds or until an HTTP date; a day at most.
 *
 * @returns milliseconds; undefined where it asks for nothing that can be understood.
 */
export function parseRetryAfter(header: string | null, now = Date.now()): number | undefined {
  const text = header?.trim() ?? ''
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : /^[A-Z][a-z]{2,}/.test(text) ? Date.parse(text) - now : Number.NaN
  return wait > 0 ? Math.min(wait, 86_400_000) : undefined
}
