import { setTimeout as sleep } from 'node:timers/promises'
import type { DataApi } from './data-api.ts'
import { TrackingError } from './tracking-error.ts'

/** A row of public.events, as the API answers it. */
export type EventRow = {
  event_id: string
  occurred_at: string
  event: string
  channel: string
  actor_id: string | null
  org_id: string | null
  app_id: string | null
  icon: string | null
  source: string
  tags: Record<string, unknown>
} & Record<string, unknown>

/** Which events to show; those that nothing is said about, all. */
export type Filter = { org?: string, app?: string, actor?: string, /** May hold `*` and `?`. */ event?: string }

export type Tail = {
  api: DataApi
  filter: Filter
  /** From when on, before what comes in from now on. */
  since?: Date
  /** How long to wait after an answer that held everything there was, in milliseconds. */
  every: number
  show(event: EventRow): Promise<void>
  /** Told when the API cannot be reached, and with nothing when it can again. */
  trouble(error?: TrackingError): void
  interrupted: AbortSignal
}

const PAGE = 500
const LAST_WAIT = 15_000

/**
 * Shows the events of the log that the caller may read, as they are committed, until it is interrupted. None is
 * left out, however late it commits, and none is shown twice.
 *
 * @throws {TrackingError} the API's codes; what may pass is, after the first answer, tried again for ever.
 */
export async function tail(options: Tail): Promise<void> {
  const { api, every, show, interrupted } = options
  const passes = toMatcher(options.filter)
  const read = (after: unknown) => api.rpc<Page>('read_events', { after, max_events: PAGE })
  // The cursor comes before the look back, so that nothing falls between the two; what both show is in `seen`.
  let { cursor } = await read(null)
  let seen: Set<string> | undefined = options.since && await lookBack(options, passes, options.since)
  for (;;) {
    const page = await untilAnswered(options, () => read(cursor))
    for (const event of page.events) {
      if (passes(event) && !seen?.has(event.event_id)) await show(event)
    }
    cursor = page.cursor
    if (page.events.length === PAGE) continue
    seen = undefined
    await sleep(every, undefined, { signal: interrupted })
  }
}

/** What read_events answers. */
type Page = { cursor: unknown, events: EventRow[] }

/** @returns the ids of the events that were shown. */
async function lookBack(options: Tail, passes: Matcher, since: Date): Promise<Set<string>> {
  const { api, filter, show } = options
  const query = {
    select: '*', order: 'occurred_at.asc,event_id.asc', limit: String(PAGE),
    ...(filter.org && { org_id: `eq.${filter.org}` }),
    ...(filter.app && { app_id: `eq.${filter.app}` }),
    ...(filter.actor && { actor_id: `eq.${filter.actor}` }),
  }
  const shown = new Set<string>()
  let from: Record<string, string> = { occurred_at: `gte.${since.toISOString()}` }
  for (;;) {
    const events = await untilAnswered(options, () => api.select<EventRow>('events', { ...query, ...from }))
    for (const event of events) {
      shown.add(event.event_id)
      if (passes(event)) await show(event)
    }
    const last = events.at(-1)
    if (!last) return shown
    const time = `"${last.occurred_at}"`
    from = { or: `(occurred_at.gt.${time},and(occurred_at.eq.${time},event_id.gt.${last.event_id}))` }
  }
}

async function untilAnswered<T>({ trouble, interrupted }: Tail, ask: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      const answer = await ask()
      if (tries > 0) trouble()
      return answer
    } catch (error) {
      if (!(error instanceof TrackingError) || !mayPass(error)) throw error
      if (tries === 0) trouble(error)
      await sleep(Math.min(LAST_WAIT, 500 * 2 ** tries) * (0.5 + Math.random() / 2), undefined, { signal: interrupted })
    }
  }
}

function mayPass({ code, status = 0 }: TrackingError): boolean {
  return code === 'network_error' || status === 408 || status === 429 || status >= 500
}

type Matcher = (event: EventRow) => boolean

/** Makes the question whether an event passes a filter. */
export function toMatcher({ org, app, actor, event }: Filter): Matcher {
  const name = event === undefined ? undefined : globPattern(event)
  return (row) =>
    (org === undefined || row.org_id === org.toLowerCase()) &&
    (app === undefined || row.app_id === app) &&
    (actor === undefined || row.actor_id === actor.toLowerCase()) &&
    (name === undefined || name.test(row.event))
}

function globPattern(glob: string): RegExp {
  const pattern = glob.replace(/[.+^${}()|[\]\\]/g, '\\$&').replace(/\*/g, '.*').replace(/\?/g, '.')
  return new RegExp(`^${pattern}$`, 'su')
}
