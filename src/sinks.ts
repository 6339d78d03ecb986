import { openBento } from './bento.ts'
import { openLogSnag } from './logsnag.ts'
import { openNdjson } from './ndjson.ts'
import { openPostHog } from './posthog.ts'
import { misconfigured, type Sink, type SinkContext, type SinkSettings } from './sink.ts'
import { openWebhook } from './webhook.ts'

const openers: Record<string, (batch: SinkSettings, context: SinkContext) => Sink> = {
  posthog: openPostHog, logsnag: openLogSnag, bento: openBento, webhook: openWebhook, ndjson: openNdjson,
}

/**
 * Makes the sink of a kind from its settings and its secrets.
 *
 * @throws {SinkError} `retry`, where a setting or a secret is missing or wrong: events wait until that is put right.
 */
export function openSink(batch: SinkSettings, context: SinkContext): Sink {
  const open = openers[batch.kind]
  if (!open) throw misconfigured(batch, `is of the unknown kind ${JSON.stringify(batch.kind)}`)
  return open(batch, context)
}
