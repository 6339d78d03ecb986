// What stands between the log and its sinks.
import { error, ok, some, warning, type Check } from './finding.ts'

type Lag = {
  sink: string, enabled: boolean, pending: number, oldest_seconds: number | null, undelivered: number
  last_error: string | null
}

/** A sink that is further behind than this is amiss, in seconds. */
const longLag = 600

/** The log is delivered: nothing is missing in the books, refused for good, or waits for long. */
export const sinks: Check = async (sql) => {
  const [{ isRestored, gaps } = { isRestored: false, gaps: [] }] = await sql<{ isRestored: boolean, gaps: string[] }[]>`
    select tracking.is_restored() as "isRestored", array(select distinct sink from tracking.delivery_gaps) as gaps`
  if (isRestored) return error('the log was restored from another cluster, and waits', 'select tracking.raise_epoch();')
  if (gaps.length > 0) {
    return error(`events of ${some(gaps)} are missing in the books`,
      'select * from tracking.delivery_gaps; and please report it.')
  }
  const lags = await sql<Lag[]>`
    select sink, enabled, pending::int, oldest_seconds, undelivered::int, last_error
    from   tracking.sink_lag
    order  by sink`
  const failing = lags.find(({ last_error }) => last_error !== null)
  if (failing) {
    return warning(`${failing.sink} fails, and its events wait: ${failing.last_error}`,
      'Put right what it says; the worker tries again by itself.')
  }
  const refusing = lags.find(({ undelivered }) => undelivered > 0)
  if (refusing) {
    return warning(`${refusing.sink} refused ${events(refusing.undelivered)} for good`,
      'npx actorscope dead list; then retry or drop them.')
  }
  const late = lags.find(({ enabled, oldest_seconds }) => enabled && (oldest_seconds ?? 0) > longLag)
  if (late) {
    return warning(`${late.sink} is ${events(late.pending)} behind, the oldest of ${age(late.oldest_seconds)} ago`,
      'npx actorscope worker, or schedule the function deliver.')
  }
  return ok(lags.length === 0 ? 'none' : `nothing is lost or late on the way to ${some(lags.map(({ sink }) => sink))}`)
}

function events(count: number): string {
  return count === 1 ? '1 event' : `${count} events`
}

function age(seconds: number | null): string {
  const minutes = Math.round((seconds ?? 0) / 60)
  return minutes < 120 ? `${minutes} minutes` : `${Math.round(minutes / 60)} hours`
}
