import { post } from './http.ts'
import { requireSecret } from './secrets.ts'
import {
  identityOf, misconfigured, readSettings, type EventRow, type Sink, type SinkContext, type SinkSettings,
} from './sink.ts'

/**
 * Logs each event to LogSnag (https://docs.logsnag.com/api-reference/log), with the secret `token`.
 * Settings: `project`; `host`, default https://api.logsnag.com; `timeout_seconds`, default 30.
 *
 * LogSnag takes one event a request and knows no ids: an event whose answer was lost is shown twice, and the tag
 * `event-id` tells.
 */
export function openLogSnag(batch: SinkSettings, context: SinkContext): Sink {
  const { project, host = 'https://api.logsnag.com', timeout_seconds } = readSettings(batch, {
    project: 'text', host: 'url', timeout_seconds: 'seconds' })
  if (!project) throw misconfigured(batch, 'has no project')
  const token = requireSecret(batch, context, 'token')
  return {
    maxBatch: 1,
    async send(events, signal) {
      for (const { row } of events) {
        await post(batch, context, {
          url: new URL('/v1/log', host), headers: { authorization: `Bearer ${token}` },
          body: JSON.stringify(logSnagPayload(row, project)),
          signal, timeoutSeconds: timeout_seconds, secrets: [token],
        })
      }
      return []
    },
  }
}

/** An event as LogSnag wants it. What it could not show, such as an icon that is no emoji, is left out. */
function logSnagPayload(event: EventRow, project: string) {
  const { event_id: _, ...tags } = event.tags
  return {
    project,
    channel: event.channel.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '') || 'default',
    event: event.event,
    ...event.description ? { description: event.description } : {},
    ...isEmoji(event.icon) ? { icon: event.icon } : {},
    ...event.parser === 'markdown' || event.parser === 'text' ? { parser: event.parser } : {},
    notify: event.notify,
    user_id: identityOf(event),
    timestamp: Math.floor(Date.parse(event.occurred_at) / 1000),
    tags: logSnagTags({ event_id: event.event_id, ...tags }),
  }
}

// One emoji, or its shortcode.
function isEmoji(icon: string | null): boolean {
  return icon !== null && /^(?:\p{RGI_Emoji}|\p{Extended_Pictographic}|:[a-z0-9_+\-]+:)$/v.test(icon)
}

const digits = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']

/**
 * Tags as LogSnag takes them: keys of lower-case letters and dashes (`durationMs2` becomes `duration-ms-two`),
 * values that are strings, numbers or booleans (others as JSON; null is left out). Two keys that come to the same
 * are kept apart by another letter.
 */
export function logSnagTags(tags: Record<string, unknown>): Record<string, string | number | boolean> {
  const taken: Record<string, string | number | boolean> = {}
  for (const [key, value] of Object.entries(tags)) {
    if (value === null || value === undefined) continue
    const name = tagKey(key)
    let free = name
    for (let n = 0; Object.hasOwn(taken, free); n++) free = `${name}-${'x'.repeat(n + 1)}`
    taken[free] = typeof value === 'object' ? JSON.stringify(value) : value as string | number | boolean
  }
  return taken
}

function tagKey(key: string): string {
  return key
    .replace(/([a-z])([A-Z])/g, '$1-$2')
    .replace(/\d/g, (digit) => `-${digits[Number(digit)]}-`)
    .toLowerCase().replace(/[^a-z]+/g, '-').replace(/^-+|-+$/g, '') || 'tag'
}
