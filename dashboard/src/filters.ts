import type { Route } from './route.ts'

/** What every question is narrowed down by. */
export type Filters = { org?: string, app?: string, since?: string, until?: string }

export const ranges: Record<string, string> = {
  '1d': 'Last 24 hours',
  '7d': 'Last 7 days',
  '30d': 'Last 30 days',
  '90d': 'Last 90 days',
  '365d': 'Last 12 months',
  all: 'All time',
  custom: 'From … to …',
}

const hour = 3_600_000
const day = 24 * hour

export const rangeOf = ({ params }: Route): string => {
  const range = params.get('range') ?? '90d'
  return range in ranges ? range : '90d'
}

/** The filters that an address stands for. Days are UTC's, today included; both days of a range that was named count. */
export function filtersOf(route: Route, now = Date.now()): Filters {
  const { params } = route
  const range = rangeOf(route)
  const org = params.get('org') ?? undefined
  const app = params.get('app') ?? undefined
  if (range === 'custom') return { org, app, since: dayOf(params.get('since')), until: dayOf(params.get('until'), day) }
  if (range === 'all') return { org, app }
  const length = Number.parseInt(range)
  const since = length === 1 ? Math.floor(now / hour) * hour - 23 * hour : Math.floor(now / day) * day - (length - 1) * day
  return { org, app, since: iso(since) }
}

/** How many days a range is long; null where it has no beginning. */
export function daysIn({ since, until }: Filters, now = Date.now()): number | null {
  return since ? (Date.parse(until ?? new Date(now).toISOString()) - Date.parse(since)) / day : null
}

function dayOf(text: string | null, later = 0): string | undefined {
  const time = Date.parse(`${text}T00:00:00Z`)
  return Number.isNaN(time) ? undefined : iso(time + later)
}

const iso = (time: number): string => new Date(time).toISOString().replace('.000Z', 'Z')
