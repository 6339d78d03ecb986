// The questions of analytics, answered slowly: one loop after another over the events, as their definitions say it. It
// knows nothing of the chapters' SQL, so where the two agree, both follow the definitions.

/** An event; times are in milliseconds. */
export type LogEvent = {
  org: string | null, app: string | null, actor: string | null, event: string, channel: string, at: number, tags: Record<string, string>
}
/** A build; times are in milliseconds. */
export type Build = {
  id: string, org: string, app: string, actor: string, platform: string, mode: string, status: string, category: string | null
  requested: number, started: number | null, ended: number | null
}
export type Filters = { org?: string, app?: string, since?: number, until?: number, tags?: Record<string, string> }
export type By = 'actor' | 'org'
export type Period = 'hour' | 'day' | 'week' | 'month'

const SECOND = 1_000
const HOUR = 3_600 * SECOND
const DAY = 24 * HOUR

/** The surfaces of the demo world, by channel. */
const surfaces: Record<string, string> = { 'usage': 'dashboard', 'cli-usage': 'cli', 'build-lifecycle': 'builder' }
const knownSurfaces = ['builder', 'cli', 'dashboard']


// What they have in common ------------------------------------------------------------------------------

function filtered(log: LogEvent[], { org, app, since, until, tags = {} }: Filters): LogEvent[] {
  return log.filter((event) => (org === undefined || event.org === org) && (app === undefined || event.app === app)
    && (since === undefined || event.at >= since) && (until === undefined || event.at < until)
    && Object.entries(tags).every(([name, value]) => event.tags[name] === value))
}

/** The events of each person or organization, in their order; events of nobody are left out. */
function bySubject(log: LogEvent[], by: By): Map<string, LogEvent[]> {
  const known = log.filter((event) => event[by] !== null).sort(inOrder)
  return groupBy(known, (event) => event[by]!)
}

/** Of the same moment, the one whose name comes first. */
const inOrder = (a: LogEvent, b: LogEvent) => a.at - b.at || (a.event < b.event ? -1 : a.event > b.event ? 1 : 0)

export function groupBy<T, K>(items: T[], key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const found = groups.get(key(item))
    if (found) found.push(item)
    else groups.set(key(item), [item])
  }
  return groups
}

/** When the period of a time begins. */
export function periodOf(at: number, period: Period): number {
  const date = new Date(at)
  const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()]
  switch (period) {
    case 'hour': return Date.UTC(year, month, day, date.getUTCHours())
    case 'day': return Date.UTC(year, month, day)
    case 'week': return Date.UTC(year, month, day - (date.getUTCDay() + 6) % 7)
    case 'month': return Date.UTC(year, month)
  }
}

/** When the nth period after one begins. */
function later(at: number, period: Period, n: number): number {
  const date = new Date(at)
  return period === 'month' ? Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + n) : at + n * { hour: HOUR, day: DAY, week: 7 * DAY }[period]
}

/** From since, or the first period there is, to the last before until, or the last there is. */
function periodsOf(seen: number[], period: Period, { since, until }: Filters, now: number): number[] {
  const first = since === undefined ? Math.min(...seen) : periodOf(since, period)
  const last = until === undefined ? Math.max(...seen) : periodOf(Math.min(until - 1, now + DAY), period)
  const periods: number[] = []
  for (let at = first; at <= last && Number.isFinite(first); at = later(at, period, 1)) periods.push(at)
  return periods
}

/** The value at a part of the way through the values: between two of them, in proportion. */
function percentile(values: number[], part: number): number | null {
  const sorted = values.toSorted((a, b) => a - b)
  const place = (sorted.length - 1) * part
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]]
  return low === undefined || high === undefined ? null : low + (high - low) * (place - Math.floor(place))
}

/** A share to four places, halves up; null of nothing. */
const share = (part: number, whole: number): number | null => (whole === 0 ? null : Math.floor((part * 20_000 + whole) / (2 * whole)) / 10_000)

const dateOf = (at: number): string => new Date(at).toISOString().slice(0, 10)
const timeOf = (at: number): string => new Date(at).toISOString()
const seconds = (from: number, to: number): number => (to - from) / SECOND
const distinct = <T>(items: (T | null)[]): T[] => [...new Set(items.filter((item) => item !== null))].sort()
/** Nulls come last. */
const compare = (a: string | null, b: string | null): number => (a === b ? 0 : a === null ? 1 : b === null ? -1 : a < b ? -1 : 1)


// The questions -----------------------------------------------------------------------------------------

export function funnel(log: LogEvent[], steps: string[], within: number, by: By, breakdown: string | null, filters: Filters) {
  const best = [...bySubject(filtered(log, filters), by).values()].flatMap((events) => {
    const attempts = events.filter(({ event }) => event === steps[0]).map((start) => attempt(events, start.at, steps, within))
    const most = Math.max(...attempts.map(({ length }) => length))
    const times = attempts.find(({ length }) => length === most)
    return times ? [{ times, value: valueOf(events, steps[0]!, times[0]!, breakdown) }] : []
  })
  const groups = [...groupBy(best, ({ value }) => value)]
  if (breakdown === null && groups.length === 0) groups.push([null, []])
  groups.sort(([a, ofA], [b, ofB]) => ofB.length - ofA.length || compare(a, b))
  return groups.flatMap(([value, members]) => steps.map((event, n) => {
    const reached = (step: number) => members.filter(({ times }) => times.length > step).length
    return {
      breakdown: value, step: n + 1, event, subjects: reached(n), conversion: share(reached(n), reached(0)),
      step_conversion: share(reached(n), reached(Math.max(n - 1, 0))),
      median_seconds: n === 0 ? null : percentile(members.flatMap(({ times }) => (times.length > n ? [seconds(times[n - 1]!, times[n]!)] : [])), 0.5),
    }
  }))
}

/** The times of the steps that are taken from a beginning on, each at its first occasion. */
function attempt(events: LogEvent[], start: number, steps: string[], within: number): number[] {
  const times = [start]
  for (const step of steps.slice(1)) {
    const next = events.find(({ event, at }) => event === step && at > times.at(-1)!)
    if (!next || next.at - start > within) break
    times.push(next.at)
  }
  return times
}

function valueOf(events: LogEvent[], name: string, at: number, tag: string | null): string | null {
  if (tag === null) return null
  return distinct(events.filter((event) => event.event === name && event.at === at).map(({ tags }) => tags[tag] ?? null))[0] ?? null
}

export function retention(
  log: LogEvent[], first: string, again: string, period: Period, by: By, periods: number, filters: Filters, now: number) {
  const subjects = [...bySubject(filtered(log, filters), by).values()].flatMap((events) => {
    const begun = events.find(({ event }) => event === first)
    return begun ? [{ cohort: periodOf(begun.at, period), times: events.filter(({ event, at }) => event === again && at >= begun.at).map(({ at }) => at) }] : []
  })
  return [...groupBy(subjects, ({ cohort }) => cohort)].sort(([a], [b]) => a - b).flatMap(([cohort, members]) => (
    Array.from({ length: periods }, (_, n) => n).flatMap((n) => {
      const [from, to] = [later(cohort, period, n), later(cohort, period, n + 1)]
      if (n > 0 && (from > now || from >= (filters.until ?? Infinity))) return []
      const came = members.filter(({ times }) => times.some((at) => at >= from && at < to)).length
      return [{ cohort: dateOf(cohort), size: members.length, period: n, subjects: came, share: share(came, members.length) }]
    })))
}

export function active(log: LogEvent[], by: By, period: Period, event: string | null, filters: Filters, now: number) {
  const { since, ...others } = filters
  const asked = (all: LogEvent[]) => all.filter((one) => event === null || one.event === event)
  const ever = [...bySubject(asked(filtered(log, others)), by).values()]
  const shown = ever.map((events) => filtered(events, filters))
  const periods = periodsOf(shown.flat().map(({ at }) => periodOf(at, period)), period, filters, now)
  return periods.map((at) => {
    const was = (events: LogEvent[], when: number) => events.some((one) => periodOf(one.at, period) === when)
    const there = ever.filter((_, n) => was(shown[n]!, at))
    const fresh = there.filter((events) => events.every((one) => periodOf(one.at, period) >= at))
    const back = there.filter((events) => was(events, later(at, period, -1)))
    return {
      period: dateOf(at), active: there.length, new: fresh.length, returning: back.length, resurrected: there.length - fresh.length - back.length }
  })
}

export function paths(log: LogEvent[], from: string, depth: number, gap: number, filters: Filters) {
  type Step = { step: number, source: string, target: string | null, seconds: number | null, actor: string }
  const taken: Step[] = []
  for (const [actor, events] of bySubject(filtered(log, filters), 'actor')) {
    for (let n = 0; n < events.length; n++) {
      if (events[n]!.event !== from) continue
      for (let step = 1; step <= depth; step++) {
        const [source, target] = [events[n]!, events[n + 1]]
        if (!target || target.at - source.at > gap) {
          taken.push({ step, source: source.event, target: null, seconds: null, actor })
          break
        }
        taken.push({ step, source: source.event, target: target.event, seconds: seconds(source.at, target.at), actor })
        n += 1
      }
    }
  }
  return [...groupBy(taken, ({ step, source, target }) => JSON.stringify([step, source, target])).values()].map((steps) => ({
    step: steps[0]!.step, source: steps[0]!.source, target: steps[0]!.target, paths: steps.length,
    actors: new Set(steps.map(({ actor }) => actor)).size,
    median_seconds: percentile(steps.flatMap((one) => one.seconds ?? []), 0.5),
  })).sort((a, b) => a.step - b.step || b.paths - a.paths || compare(a.source, b.source) || compare(a.target, b.target))
}

export function sessions(log: LogEvent[], gap: number, filters: Filters) {
  const all: LogEvent[][] = []
  for (const events of bySubject(filtered(log, filters), 'actor').values()) {
    events.forEach((event, n) => {
      if (n > 0 && event.at - events[n - 1]!.at <= gap) all.at(-1)!.push(event)
      else all.push([event])
    })
  }
  return all.map((events) => {
    const [first, last] = [events[0]!, events.at(-1)!]
    return {
      actor_id: first.actor!, started_at: timeOf(first.at), ended_at: timeOf(last.at), seconds: seconds(first.at, last.at), events: events.length,
      first_event: first.event, last_event: last.event,
      surfaces: distinct(events.map(({ channel }) => surfaces[channel] ?? null)), orgs: distinct(events.map(({ org }) => org)),
    }
  }).sort((a, b) => compare(b.started_at, a.started_at) || compare(a.actor_id, b.actor_id))
}

export function surfaceSets(log: LogEvent[], filters: Filters) {
  const events = filtered(log, filters)
  const seen = (by: By) => [...bySubject(events, by).values()].map((own) => distinct(own.map(({ channel }) => surfaces[channel] ?? null)))
  const [actors, orgs] = [seen('actor'), seen('org')]
  const sets = knownSurfaces.reduce<string[][]>((sets, surface) => [...sets, ...sets.map((set) => [...set, surface])], [[]]).slice(1)
  sets.sort((a, b) => a.length - b.length || compare(a.join(), b.join()))
  const exactly = (all: string[][], set: string[]) => all.filter((own) => own.join() === set.join()).length
  const atLeast = (all: string[][], set: string[]) => all.filter((own) => set.every((surface) => own.includes(surface))).length
  return sets.map((set) => ({
    surfaces: set, actors: exactly(actors, set), actors_at_least: atLeast(actors, set), orgs: exactly(orgs, set), orgs_at_least: atLeast(orgs, set) }))
}

export function activity(log: LogEvent[], period: Period, event: string | null, filters: Filters, now: number) {
  const events = filtered(log, filters).filter((one) => event === null || one.event === event)
  return periodsOf(events.map(({ at }) => periodOf(at, period)), period, filters, now).map((at) => {
    const there = events.filter((one) => periodOf(one.at, period) === at)
    return {
      period: timeOf(at), events: there.length, actors: distinct(there.map(({ actor }) => actor)).length, orgs: distinct(there.map(({ org }) => org)).length }
  })
}

export function buildHealth(all: Build[], period: Period, by: 'app' | 'org' | 'platform' | 'build_mode' | 'actor' | null, { org, app, since, until }: Filters) {
  const builds = all.filter((build) => (org === undefined || build.org === org) && (app === undefined || build.app === app))
  const hasFailed = ({ status }: Build) => status === 'failed' || status === 'timed_out'
  const alike = (a: Build, b: Build) => a.app === b.app && a.platform === b.platform && a.mode === b.mode
  const inTurn = (time: (build: Build) => number) => (a: Build, b: Build) => time(a) - time(b) || compare(a.id, b.id)
  const byRequest = builds.toSorted(inTurn(({ requested }) => requested))
  const byEnd = builds.filter(({ ended }) => ended !== null).sort(inTurn(({ ended }) => ended!))
  const isFlaky = (failure: Build) => {
    const next = byRequest.slice(byRequest.indexOf(failure) + 1).find((build) => alike(build, failure))
    return next?.status === 'succeeded' && next.requested <= failure.ended! + HOUR
  }
  const toGreen = (success: Build): number[] => {
    const before = byEnd.slice(0, byEnd.indexOf(success)).filter((build) => alike(build, success))
    const red = before.slice(before.findLastIndex(({ status }) => status === 'succeeded') + 1).find(hasFailed)
    return red ? [seconds(red.ended!, success.ended!)] : []
  }
  const valueOf = (build: Build) => (by === null ? null : by === 'build_mode' ? build.mode : build[by])
  const counted = byEnd.filter(({ ended }) => (since === undefined || ended! >= since) && (until === undefined || ended! < until))
  return [...groupBy(counted, (build) => JSON.stringify([periodOf(build.ended!, period), valueOf(build)])).values()].map((group) => {
    const [succeeded, failed] = [group.filter(({ status }) => status === 'succeeded'), group.filter(hasFailed)]
    const run = group.flatMap(({ started, ended }) => (started === null ? [] : [seconds(started, Math.max(started, ended!))]))
    const queue = group.flatMap(({ requested, started }) => (started === null ? [] : [seconds(requested, Math.max(requested, started))]))
    return {
      period: dateOf(periodOf(group[0]!.ended!, period)), by_value: valueOf(group[0]!), builds: group.length, succeeded: succeeded.length, failed: failed.length,
      success_rate: share(succeeded.length, succeeded.length + failed.length),
      p50_run_seconds: percentile(run, 0.5), p95_run_seconds: percentile(run, 0.95),
      p50_queue_seconds: percentile(queue, 0.5), p95_queue_seconds: percentile(queue, 0.95),
      failure_categories: Object.fromEntries([...groupBy(failed, ({ category }) => category!)].map(([category, them]) => [category, them.length])),
      median_seconds_to_green: percentile(succeeded.flatMap(toGreen), 0.5),
      flakiness: share(failed.filter(isFlaky).length, failed.length),
    }
  }).sort((a, b) => compare(a.period, b.period) || compare(a.by_value, b.by_value))
}
