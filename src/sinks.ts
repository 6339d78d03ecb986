import { openBento } from './bento.ts'
import { openLogSnag } from './logsnag.ts'
import { openNdjson } from './ndjson.ts'
import { openPostHog } from './posthog.ts'
import { misconfigured, type Erased, type Notice, type Sink, type SinkContext, type SinkSettings } from './sink.ts'
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

/** Why sinks of a kind cannot be told of an erasure. */
const untold: Record<string, string> = {
  logsnag: 'LogSnag documents no way to delete what it was sent: its dashboard does.',
  ndjson: 'A file that was written stays as it is: whoever has it must see to it.',
}

/** Whether a sink of that kind can be told of an erasure. */
export const canBeTold = (kind: string): boolean => !Object.hasOwn(untold, kind)

/**
 * Has a sink forget somebody who was erased.
 *
 * @throws {SinkError} where it is to be told later.
 */
export async function tellOfErasure(
  sink: SinkSettings, context: SinkContext, whom: Erased, signal: AbortSignal,
): Promise<Notice> {
  const reason = untold[sink.kind]
  if (reason) return { outcome: 'impossible', detail: reason }
  return openSink(sink, context).erase!(whom, signal)
}
