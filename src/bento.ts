import { parseAnswer, post } from './http.ts'
import { Pace } from './pace.ts'
import { redact, requireSecret } from './secrets.ts'
import {
  isoTime, misconfigured, readSettings, sift, SinkError,
  type Erased, type EventRow, type LoggedEvent, type Notice, type Sink, type SinkContext, type SinkSettings, type Undelivered,
} from './sink.ts'

/**
 * Sends events to Bento (`/api/v1/batch/events`, https://bentonow.com/docs/events_api) as those of the actor's email
 * address, and the mails that tracking.reactions makes of them. Secrets: `publishable_key`, `secret_key`.
 * Settings: `site_uuid`; `mails_only`, default false: events are only the occasion for mails, and not sent
 * themselves; `requests_per_minute`, default 100, which is Bento's limit: where several workers share the sink, each
 * keeps to it; `host`, default https://app.bentonow.com; `timeout_seconds`, default 30.
 *
 * Bento knows people by their address. An event whose actor has none cannot be sent, and is handed back with
 * that as the reason. Bento knows events by no id: one whose answer was lost is there twice, with the same
 * `details.event_id`. A mail is noted as sent when Bento has said that it took it, and not sent again.
 *
 * A person is erased by their address (`/api/v1/data_deletion_requests`, https://bentonow.com/docs/data_deletion_requests_api).
 */
export function openBento(batch: SinkSettings, context: SinkContext): Sink {
  const site = openSite(batch, context)
  const request = (events: BentoEvent[], signal: AbortSignal) => record(batch, site, events, signal)
  return {
    maxBatch: maxEvents,
    erase: (whom, signal) => erase(site, whom, signal),
    async send(events, signal) {
      const { sound, undelivered } = batch.settings.mails_only ? nothing : await address(context, events)
      // Mails first: what is noted as sent is not sent again, whatever becomes of the rest.
      for (const mails of inChunks(await mailsOf(batch, context, events))) {
        await request(mails.map(toMailEvent), signal)
        await noteSent(batch, context, mails)
      }
      if (sound.length > 0) await request(sound, signal)
      return undelivered
    },
  }
}

const maxEvents = 1000
const nothing = { sound: [], undelivered: [] }

/** What Bento takes. */
type BentoEvent = { type: string, email: string, date?: string, details: Record<string, unknown> }

/** Each site's pace, for as long as this process lives. */
const paces = new Map<string, Pace>()

/** Posts to a site, as its owner: JSON, or a form. */
type Site = (path: string, body: string | URLSearchParams, signal: AbortSignal) => Promise<string>

/** Makes what posts to a site. */
function openSite(batch: SinkSettings, context: SinkContext): Site {
  const settings = readSettings(batch, {
    site_uuid: 'text', mails_only: 'boolean', requests_per_minute: 'count', host: 'url', timeout_seconds: 'seconds' })
  const { site_uuid, requests_per_minute = 100, host = 'https://app.bentonow.com', timeout_seconds } = settings
  if (!site_uuid) throw misconfigured(batch, 'has no site_uuid')
  const publishable = requireSecret(batch, context, 'publishable_key')
  const secret = requireSecret(batch, context, 'secret_key')
  const login = btoa(String.fromCharCode(...new TextEncoder().encode(`${publishable}:${secret}`)))
  const place = `${host} ${site_uuid} ${requests_per_minute}`
  const pace = paces.get(place) ?? new Pace(requests_per_minute)
  paces.set(place, pace)

  return async (path, body, signal) => {
    const url = new URL(path, host)
    const isForm = typeof body !== 'string'
    const { searchParams } = isForm ? { searchParams: body } : url
    searchParams.set('site_uuid', site_uuid)
    await pause(pace.next(), signal)
    return post(batch, context, {
      url, body: body.toString(), signal, timeoutSeconds: timeout_seconds, secrets: [secret, publishable, login],
      headers: {
        authorization: `Basic ${login}`, ...isForm && { 'content-type': 'application/x-www-form-urlencoded' } },
    })
  }
}

async function record(batch: SinkSettings, site: Site, events: BentoEvent[], signal: AbortSignal): Promise<void> {
  const failed = failedOf(await site('/api/v1/batch/events', JSON.stringify({ events }), signal))
  if (failed === undefined) throw misconfigured(batch, 'is answered by something that is no Bento', 200)
  const said = `Bento failed to record ${failed} of ${events.length} events.`
  if (failed > 0) throw new SinkError('refused', said, { status: 200 })
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms === 0 || signal.aborted) return
  await new Promise<void>((done) => {
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
  })
}

// Bento answers 200 and {"results": 99, "failed": 1} where it would not have one of them, and does not say which;
// a firewall before it, or a wrong host, 200 and a page.
function failedOf(answer: string): number | undefined {
  const { results, failed } = parseAnswer(answer) as { results?: number, failed?: number }
  return typeof results === 'number' ? failed ?? 0 : undefined
}

async function erase(site: Site, { subject, email }: Erased, signal: AbortSignal): Promise<Notice> {
  if (subject === 'org') return { outcome: 'impossible', detail: 'Bento knows people, and no organizations.' }
  if (!email) return { outcome: 'impossible', detail: 'Bento knows people by their address, and none was known.' }
  const form = new URLSearchParams({ 'data_deletion_request[email]': email })
  try {
    const { status } = parseAnswer(await site('/api/v1/data_deletion_requests', form, signal)) as { status?: unknown }
    if (status === 'queued_for_anonymization') return { outcome: 'told', detail: 'Bento anonymizes the person.' }
  } catch (error) {
    if (!(error instanceof SinkError)) throw error
    if (error.status === 404 && error.message.includes('visitor_not_found')) {
      return { outcome: 'told', detail: 'Bento knew no such person.' }
    }
    const { message, status, retryAfterMs } = error
    throw new SinkError('retry', redact(message, [email]), { status, retryAfterMs })
  }
  throw new SinkError('retry', 'Bento did not say that it anonymizes the person.')
}

const anAddress = /^[^\s@"(),:;<>[\]\\]+@[^\s@"(),:;<>[\]\\]+\.[^\s@"(),:;<>[\]\\]+$/

/** Finds the address of each event's actor. */
async function address(
  { sql }: SinkContext, events: LoggedEvent[],
): Promise<{ sound: BentoEvent[], undelivered: Undelivered[] }> {
  const actors = [...new Set(events.map(({ row }) => row.actor_id).filter((actor) => actor !== null))]
  const rows = actors.length === 0 ? [] : await sql<{ actor_id: string, email: string | null }[]>`
    select a.actor_id, tracking.email(a.actor_id) as email from unnest(${actors}::uuid[]) as a (actor_id)`
  const emails = new Map(rows.map(({ actor_id, email }) => [actor_id, email]))
  const emailOf = ({ actor_id }: EventRow) => emails.get(actor_id ?? '') ?? undefined
  const { sound, undelivered } = sift(events, (row) => faultIn(row, emailOf(row)))
  return { sound: sound.map((event) => toBentoEvent(event, emailOf(event)!)), undelivered }
}

function faultIn(event: EventRow, email: string | undefined): string | undefined {
  if (event.actor_id === null) return 'The event has no actor, and so no email address.'
  if (email === undefined) return 'The actor has no email address.'
  if (!anAddress.test(email)) return 'The actor\'s email address is not one that Bento takes.'
  if (event.source === 'client' && event.event.startsWith('$')) {
    return `${JSON.stringify(event.event)} is Bento's own, such as $purchase: a client's event may not have that name.`
  }
}

/** An event as Bento gets it. */
function toBentoEvent(event: EventRow, email: string): BentoEvent {
  return {
    type: event.event,
    email,
    date: isoTime(event.occurred_at),
    details: {
      ...event.context,
      ...event.tags,
      channel: event.channel,
      ...event.description === null ? {} : { description: event.description },
      event_id: event.event_id,
    },
  }
}


// Mails ---------------------------------------------------------------------------------------------

/** A row of tracking.mails_due. */
type Mail = {
  reaction: string
  scope_id: string
  event_id: string
  actor_id: string
  email: string
  mail: string
  details: Record<string, unknown>
}

async function mailsOf({ sink }: SinkSettings, { sql, log }: SinkContext, events: LoggedEvent[]): Promise<Mail[]> {
  const rows = `[${events.map(({ json }) => json).join(',')}]`
  const mails = await sql<Mail[]>`select * from tracking.mails_due(${sink}, ${rows}::text::jsonb)`
  return mails.filter(({ reaction, event_id, actor_id, email }) => {
    if (anAddress.test(email)) return true
    log('a mail was not sent: the address is none that Bento takes', { sink, reaction, event_id, actor_id })
    return false
  })
}

// Without a date: automations wait for what happens now.
function toMailEvent({ mail, email, details }: Mail): BentoEvent {
  return { type: mail, email, details }
}

async function noteSent({ sink }: SinkSettings, { sql }: SinkContext, mails: Mail[]): Promise<void> {
  const sent = mails.map(({ reaction, scope_id, event_id, actor_id }) => ({ reaction, scope_id, event_id, actor_id }))
  await sql`select tracking.mails_sent(${sink}, ${sql.json(sent)})`
}

function inChunks(mails: Mail[]): Mail[][] {
  const count = Math.ceil(mails.length / maxEvents)
  return Array.from({ length: count }, (_, n) => mails.slice(n * maxEvents, (n + 1) * maxEvents))
}
