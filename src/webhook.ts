import { Webhook } from 'standardwebhooks'
import { post } from './http.ts'
import { requireSecret } from './secrets.ts'
import {
  isoTime, misconfigured, readSettings, sift, type Erased, type EventRow, type Sink, type SinkContext, type SinkSettings,
} from './sink.ts'

/**
 * Posts each event to an URL, as https://www.standardwebhooks.com says: `webhook-id` is the event's id,
 * `webhook-signature` is made with the secret `secret` (base64, `whsec_…`).
 * Settings: `url`; `timeout_seconds`, default 30.
 *
 * One event is one request, and the next follows only its success, so receivers get them in order. Body and id
 * are the same at every try. `webhook-timestamp`, and so the signature, is the try's own: receivers refuse what
 * is more than five minutes old, and an outage, or a replay, lasts longer.
 *
 * Somebody who was erased is told of by a webhook `actor.erased` or `org.erased`, which no client can send: events that
 * clients call so are handed back.
 */
export function openWebhook(batch: SinkSettings, context: SinkContext): Sink {
  const { url, timeout_seconds } = readSettings(batch, { url: 'url', timeout_seconds: 'seconds' })
  if (!url) throw misconfigured(batch, 'has no url')
  const secret = requireSecret(batch, context, 'secret')
  const webhook = openSigner(batch, secret)
  const request = async (id: string, payload: object, signal: AbortSignal) => {
    const body = JSON.stringify(payload)
    const now = new Date()
    await post(batch, context, {
      url, body, signal, timeoutSeconds: timeout_seconds, secrets: [secret, secret.replace(/^whsec_/, '')],
      headers: {
        'webhook-id': id,
        'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
        'webhook-signature': webhook.sign(id, now, body),
      },
    })
  }
  return {
    maxBatch: 1,
    async send(events, signal) {
      const { sound, undelivered } = sift(events, faultIn)
      for (const event of sound) await request(event.event_id, webhookPayload(event), signal)
      return undelivered
    },
    async erase(whom, signal) {
      await request(whom.erasure, erasurePayload(whom), signal)
      return { outcome: 'told', detail: `It was sent ${whom.subject}.erased.` }
    },
  }
}

function openSigner(batch: SinkSettings, secret: string): Webhook {
  try {
    return new Webhook(secret)
  } catch {
    throw misconfigured(batch, 'has a secret that is not base64')
  }
}

/** The body of a webhook: the event's name, its time, and what a receiver may know of the row. */
function webhookPayload({ scope_id, txid, epoch, clock_skew, ...event }: EventRow) {
  const timestamp = isoTime(event.occurred_at)
  return { type: event.event, timestamp, data: { ...event, occurred_at: timestamp } }
}

/** The body of a webhook that somebody was erased. */
function erasurePayload({ subject, id, erased_at }: Erased) {
  const timestamp = isoTime(erased_at)
  return { type: `${subject}.erased`, timestamp, data: { [`${subject}_id`]: id, erased_at: timestamp } }
}

// Whoever receives it forgets somebody: that is not for a client to bring about.
function faultIn({ source, event }: EventRow): string | undefined {
  if (source === 'client' && (event === 'actor.erased' || event === 'org.erased')) {
    return `${JSON.stringify(event)} says that somebody was erased: a client's event may not have that name.`
  }
}
