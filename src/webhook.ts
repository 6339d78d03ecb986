import { Webhook } from 'standardwebhooks'
import { post } from './http.ts'
import { requireSecret } from './secrets.ts'
import {
  isoTime, misconfigured, readSettings, type EventRow, type Sink, type SinkContext, type SinkSettings,
} from './sink.ts'

/**
 * Posts each event to an URL, as https://www.standardwebhooks.com says: `webhook-id` is the event's id,
 * `webhook-signature` is made with the secret `secret` (base64, `whsec_…`).
 * Settings: `url`; `timeout_seconds`, default 30.
 *
 * One event is one request, and the next follows only its success, so receivers get them in order. Body and id
 * are the same at every try. `webhook-timestamp`, and so the signature, is the try's own: receivers refuse what
 * is more than five minutes old, and an outage, or a replay, lasts longer.
 */
export function openWebhook(batch: SinkSettings, context: SinkContext): Sink {
  const { url, timeout_seconds } = readSettings(batch, { url: 'url', timeout_seconds: 'seconds' })
  if (!url) throw misconfigured(batch, 'has no url')
  const secret = requireSecret(batch, context, 'secret')
  const webhook = openSigner(batch, secret)
  return {
    maxBatch: 1,
    async send(events, signal) {
      for (const { row } of events) {
        const body = JSON.stringify(webhookPayload(row))
        const now = new Date()
        await post(batch, context, {
          url, body, signal, timeoutSeconds: timeout_seconds, secrets: [secret, secret.replace(/^whsec_/, '')],
          headers: {
            'webhook-id': row.event_id,
            'webhook-timestamp': String(Math.floor(now.getTime() / 1000)),
            'webhook-signature': webhook.sign(row.event_id, now, body),
          },
        })
      }
      return []
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
