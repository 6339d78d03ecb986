import type { SupabaseClient } from '@supabase/supabase-js'
import type { Filters } from './filters.ts'

// All that the dashboard asks the database, under the rights of whoever is signed in. Each question can be put to the
// Data API, and shown as the SQL that it stands for.

/** A call of a function of `analytics`. */
export type Call<Row> = { call: string, args: Record<string, unknown>, row?: Row }

/** A look into a view of `analytics`, or a table of `public`. */
export type Look<Row> = {
  from: string
  schema?: 'public'
  columns: string
  where: [column: string, operator: keyof typeof operators, value: unknown][]
  order: [column: string, direction: 'asc' | 'desc'][]
  limit: number
  row?: Row
}

export type Question<Row> = Call<Row> | Look<Row>

const operators = { eq: '=', gte: '>=', lt: '<', lte: '<=', cs: '@>' }

/** What a database or the network said when it gave no answer. */
export class Problem extends Error {
  constructor(message: string, readonly details?: string, readonly hint?: string, readonly isSessionOver = false) {
    super(message)
  }
}

/** @throws {Problem} */
export async function ask<Row>(supabase: SupabaseClient, question: Question<Row>, signal: AbortSignal): Promise<Row[]> {
  const query = 'call' in question ? supabase.schema('analytics').rpc(question.call, question.args) : look(supabase, question)
  // People see at once that there is no answer, and try again when they like.
  return take(await query.retry(false).abortSignal(signal))
}

/** @throws {Problem} */
export async function readOn(supabase: SupabaseClient, cursor: object | null): Promise<{ cursor: object, events: LogRow[] }> {
  return take(await supabase.rpc('read_events', { after: cursor, max_events: 500 }))
}

type Answer = { data: any, error: { code?: string, message: string, details?: string, hint?: string } | null, status: number }

function take({ data, error, status }: Answer): any {
  if (!error) return data
  if (status === 0) throw new Problem('The API does not answer', error.message, 'Check that you are online and that the project runs; then try again.')
  const isSessionOver = status === 401 && /^PGRST30[0-3]$/.test(error.code ?? '')
  throw new Problem(error.message || `The API answered ${status}`, error.details, error.hint, isSessionOver)
}

function look<Row>(supabase: SupabaseClient, { from, schema = 'analytics' as 'public', columns, where, order, limit }: Look<Row>) {
  let query = supabase.schema(schema).from(from).select(columns)
  for (const [column, operator, value] of where) {
    query = query.filter(column, operator, typeof value === 'object' ? JSON.stringify(value) : value)
  }
  for (const [column, direction] of order) query = query.order(column, { ascending: direction === 'asc' })
  return query.limit(limit)
}

/** The SQL that a question stands for. */
export function asSql<Row>(question: Question<Row>): string {
  if ('call' in question) {
    const args = Object.entries(question.args).map(([name, value]) => `  ${name} => ${literal(value)}`)
    return `select * from analytics.${question.call}(${args.length ? `\n${args.join(',\n')}` : ''});`
  }
  const { from, schema = 'analytics', columns, where, order, limit } = question
  const conditions = where.map(([column, operator, value], n) => `${n ? 'and   ' : 'where '} ${column} ${operators[operator]} ${literal(value)}`)
  return [
    `select ${columns.replaceAll(/,\s*/g, ', ')}`, `from   ${schema}.${from}`, ...conditions,
    `order  by ${order.map(([column, direction]) => (direction === 'desc' ? `${column} desc` : column)).join(', ')}`, `limit  ${limit};`,
  ].join('\n')
}

function literal(value: unknown): string {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value)
  if (Array.isArray(value)) return `array[${value.map(literal).join(', ')}]`
  return `'${(typeof value === 'object' ? JSON.stringify(value) : String(value)).replaceAll("'", "''")}'`
}

/** Arguments that are there: the others have defaults. */
const given = (args: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined && value !== '' && value !== null))


// What there is -----------------------------------------------------------------------------------------

export type Org = { id: string, name: string }
export const orgs: Look<Org> = { from: 'orgs', schema: 'public', columns: 'id, name', where: [], order: [['name', 'asc']], limit: 1000 }

export type App = { app_id: string, name: string, owner_org: string }
export const apps: Look<App> = { from: 'apps', schema: 'public', columns: 'app_id, name, owner_org', where: [], order: [['name', 'asc']], limit: 1000 }

/** A kind of event: how often it was seen, and by how many. */
export type Kind = {
  event: string, channel: string, surface: string | null, events: number, actors: number, orgs: number, first_seen: string, last_seen: string
}
export const kinds = (filters: Filters): Call<Kind> => ({ call: 'kinds', args: given(filters) })


// Questions ---------------------------------------------------------------------------------------------

export type Period = 'hour' | 'day' | 'week' | 'month'
export type By = 'actor' | 'org'

export type ActivityRow = { period: string, events: number, actors: number, orgs: number }
export const activity = (period: Period, event: string | undefined, filters: Filters): Call<ActivityRow> =>
  ({ call: 'activity', args: given({ period, event, ...filters }) })

export type FunnelRow = {
  breakdown: string | null, step: number, event: string, subjects: number, conversion: number | null, step_conversion: number | null, median_seconds: number | null
}
export type Funnel = { steps: string[], within: string, by: By, breakdown?: string }
export const funnel = (asked: Funnel, filters: Filters): Call<FunnelRow> => ({ call: 'funnel', args: given({ ...asked, ...filters }) })

export type RetentionRow = { cohort: string, size: number, period: number, subjects: number, share: number }
export type Retention = { first_event: string, return_event?: string, period: Period, by: By, periods: number }
// Asked for all time: who came before the range would else be taken for new in it.
export const retention = (asked: Retention, { since, ...filters }: Filters): Call<RetentionRow> =>
  ({ call: 'retention', args: given({ ...asked, ...filters }) })

export type ActiveRow = { period: string, active: number, new: number, returning: number, resurrected: number }
export const active = (by: By, period: Period, filters: Filters): Call<ActiveRow> => ({ call: 'active', args: given({ by, period, ...filters }) })

export type SurfacesRow = { surfaces: string[], actors: number, actors_at_least: number, orgs: number, orgs_at_least: number }
export const surfaces = (filters: Filters): Call<SurfacesRow> => ({ call: 'surfaces', args: given(filters) })

export type HealthRow = {
  period: string, by_value: string | null, builds: number, succeeded: number, failed: number, success_rate: number | null,
  p50_run_seconds: number | null, p95_run_seconds: number | null, p50_queue_seconds: number | null, p95_queue_seconds: number | null,
  failure_categories: Record<string, number> | null, median_seconds_to_green: number | null, flakiness: number | null
}
export const buildHealth = (period: Period, by: string | undefined, filters: Filters): Call<HealthRow> =>
  ({ call: 'build_health', args: given({ period, by, ...filters }) })


// Rows of views -----------------------------------------------------------------------------------------

/** An event as the log has it, and read_events gives it. */
export type LogRow = {
  event_id: string, occurred_at: string, org_id: string | null, app_id: string | null, actor_id: string | null, event: string, channel: string,
  description: string | null, icon: string | null, tags: Record<string, unknown>, source: string
}
const eventColumns = 'event_id, occurred_at, org_id, app_id, actor_id, event, channel, description, icon, tags, source'
export type EventRow = LogRow & { surface: string | null }

const narrowed = ({ org, app, since, until }: Filters, time: string): Look<unknown>['where'] => [
  ...org ? [['org_id', 'eq', org] as Look<unknown>['where'][0]] : [],
  ...app ? [['app_id', 'eq', app] as Look<unknown>['where'][0]] : [],
  ...since ? [[time, 'gte', since] as Look<unknown>['where'][0]] : [],
  ...until ? [[time, 'lt', until] as Look<unknown>['where'][0]] : [],
]

export const latestEvents = (filters: Filters, limit: number): Look<EventRow> => ({
  from: 'events', columns: `${eventColumns}, surface`, where: narrowed(filters, 'occurred_at'), order: [['occurred_at', 'desc']], limit })

export const eventsOf = (actor: string, filters: Filters, limit: number): Look<EventRow> => ({
  from: 'events', columns: `${eventColumns}, surface`, where: [['actor_id', 'eq', actor], ...narrowed(filters, 'occurred_at')],
  order: [['occurred_at', 'desc']], limit })

export type ActorRow = { actor_id: string, first_seen: string, last_seen: string, events: number, active_days: number, surfaces: string[], orgs?: string[] }
const actorColumns = 'actor_id, first_seen, last_seen, events, active_days, surfaces'
export const actors = ({ org }: Filters, limit: number): Look<ActorRow> => (org
  ? { from: 'actor_orgs', columns: actorColumns, where: [['org_id', 'eq', org]], order: [['last_seen', 'desc']], limit }
  : { from: 'actors', columns: actorColumns, where: [], order: [['last_seen', 'desc']], limit })

export const actor = (id: string): Look<ActorRow> => ({
  from: 'actors', columns: `${actorColumns}, orgs`, where: [['actor_id', 'eq', id]], order: [['actor_id', 'asc']], limit: 1 })

export type BuildRow = {
  build_id: string, org_id: string, app_id: string, actor_id: string, platform: string, build_mode: string, status: string, result: string | null,
  failure_category: string | null, requested_at: string, queued_at: string | null, started_at: string | null, finished_at: string | null,
  queue_seconds: number | null, run_seconds: number | null
}
const buildColumns = 'build_id, org_id, app_id, actor_id, platform, build_mode, status, result, failure_category, ' +
  'requested_at, queued_at, started_at, finished_at, queue_seconds, run_seconds'
export const latestBuilds = (filters: Filters, limit: number): Look<BuildRow> => ({
  from: 'builds', columns: buildColumns, where: narrowed(filters, 'requested_at'), order: [['requested_at', 'desc']], limit })

export const build = (id: string): Look<BuildRow> => ({
  from: 'builds', columns: buildColumns, where: [['build_id', 'eq', id]], order: [['build_id', 'asc']], limit: 1 })

// From a minute before, since the clocks of builds and of events are not read at once.
export const eventsOfBuild = ({ build_id, org_id, requested_at }: BuildRow): Look<EventRow> => ({
  from: 'events', columns: `${eventColumns}, surface`,
  where: [
    ['scope_id', 'eq', org_id], ['occurred_at', 'gte', new Date(Date.parse(requested_at) - 60_000).toISOString()], ['tags', 'cs', { build_id }]],
  order: [['occurred_at', 'asc'], ['event_id', 'asc']], limit: 200 })
