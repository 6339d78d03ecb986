import {
  isoTime, misconfigured, parseAnswer, post, readSettings, requireSecret, SinkError,
  type LoggedEvent, type Sink, type SinkContext, type SinkSettings, type Undelivered,
} from './sink.ts'

/**
 * Sends events to Bento (`/api/v1/batch/events`, https://bentonow.com/docs/events_api) as those of the actor's email
 * address, and the mails that tracking.reactions makes of them. Secrets: `publishable_key`, `secret_key`.
 * Settings: `site_uuid`; `mails_only`, default false: events are only the occasion for mails, and not sent
 * themselves; `host`, default https://app.bentonow.com; `timeout_seconds`, default 30.
 *
 * Bento knows people by their address. An event whose actor has none cannot be sent, and is handed back with
 * that as the reason. Bento knows events by no id: one whose answer was lost is there twice, with the same
 * `details.event_id`. A mail is noted as sent when Bento has taken it, and not sent again.
 */
export function openBento(batch: SinkSettings, context: SinkContext): Sink {
  const settings = readSettings(batch, { site_uuid: 'text', mails_only: 'boolean', host: 'url', timeout_seconds: 'seconds' })
  if (!settings.site_uuid) throw misconfigured(batch, 'has no site_uuid')
  const [publishable, secret] = [requireSecret(batch, context, 'publishable_key'), requireSecret(batch, context, 'secret_key')]
  const login = btoa(String.fromCharCode(...new TextEncoder().encode(`${publishable}:${secret}`)))
  const url = new URL('/api/v1/batch/events', settings.host ?? 'https://app.bentonow.com')
  url.searchParams.set('site_uuid', settings.site_uuid)

  const request = async (events: BentoEvent[], signal: AbortSignal) => {
    const answer = await post(batch, context, {
      url, headers: { authorization: `Basic ${login}` }, body: JSON.stringify({ events }),
      signal, timeoutSeconds: settings.timeout_seconds, secrets: [secret, publishable, login],
    })
    const failed = failedOf(answer)
    if (failed === undefined) throw misconfigured(batch, 'is answered by something that is no Bento', { status: 200 })
    if (failed > 0) throw new SinkError('refused', `Bento failed to record ${failed} of ${events.length} events.`, { status: 200 })
  }
  return {
    maxBatch: maxEvents,
    async send(events, signal) {
      const { sound, undelivered } = settings.mails_only ? { sound: [], undelivered: [] } : await address(context, events)
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

// Bento's pages name 100 events a request, and 1,000.
const maxEvents = 100

/** What Bento takes. */
export type BentoEvent = { type: string, email: string, date?: string, details: Record<string, unknown> }

// Bento answers 200 and {"results": 99, "failed": 1} where it would not have one of them, and does not say which;
// a firewall before it, or a wrong host, 200 and a page.
function failedOf(answer: string): number | undefined {
  const { results, failed } = parseAnswer(answer) as { results?: number, failed?: number }
  return typeof results === 'number' ? failed ?? 0 : undefined
}

const anAddress = /^[^\s@"(),:;<>[\]\\]+@[^\s@"(),:;<>[\]\\]+\.[^\s@"(),:;<>[\]\\]+$/

/** Finds the address of each event's actor. */
async function address({ sql }: SinkContext, events: LoggedEvent[]): Promise<{ sound: BentoEvent[], undelivered: Undelivered[] }> {
  const actors = [...new Set(events.map(({ actor_id }) => actor_id).filter((actor) => actor !== null))]
  const rows = actors.length === 0 ? [] : await sql<{ actor_id: string, email: string | null }[]>`
    select a.actor_id, tracking.email(a.actor_id) as email from unnest(${actors}::uuid[]) as a (actor_id)`
  const emails = new Map(rows.map(({ actor_id, email }) => [actor_id, email]))
  const sound: BentoEvent[] = []
  const undelivered: Undelivered[] = []
  for (const event of events) {
    const email = event.actor_id === null ? null : emails.get(event.actor_id) ?? null
    const error = faultIn(event, email)
    if (error) undelivered.push({ event, error })
    else sound.push(toBentoEvent(event, email!))
  }
  return { sound, undelivered }
}

function faultIn(event: LoggedEvent, email: string | null): string | undefined {
  if (event.actor_id === null) return 'The event has no actor, and so no email address.'
  if (email === null) return 'The actor has no email address.'
  if (!anAddress.test(email)) return 'The actor\'s email address is not one that Bento takes.'
  if (event.source === 'client' && event.event.startsWith('$')) {
    return `${JSON.stringify(event.event)} is Bento's own, such as $purchase: a client's event may not have that name.`
  }
}

/** An event as Bento gets it. */
export function toBentoEvent(event: LoggedEvent, email: string): BentoEvent {
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

type Mail = { reaction: string, scope_id: string, event_id: string, actor_id: string, email: string, mail: string, details: Record<string, unknown> }

async function mailsOf({ sink }: SinkSettings, { sql, log }: SinkContext, events: LoggedEvent[]): Promise<Mail[]> {
  const mails = await sql<Mail[]>`select * from tracking.mails_due(${sink}, ${sql.json(events as never)})`
  const [good, bad] = [mails.filter(({ email }) => anAddress.test(email)), mails.filter(({ email }) => !anAddress.test(email))]
  for (const { reaction, event_id, actor_id } of bad) log('A mail was not sent: the address is none that Bento takes.', { sink, reaction, event_id, actor_id })
  return good
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
  return Array.from({ length: Math.ceil(mails.length / maxEvents) }, (_, n) => mails.slice(n * maxEvents, (n + 1) * maxEvents))
}
