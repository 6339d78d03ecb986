import fc from 'fast-check'
import pc from 'picocolors'
import stringWidth from 'string-width'
import { describe, expect, test } from 'vitest'
import * as charts from '../src/charts.ts'
import type { BuildsRow, Canvas, FunnelRow, PathsRow, RetentionRow, SessionsRow, SurfacesRow } from '../src/charts.ts'
import { asTable, fit } from '../src/table.ts'

const plain: Canvas = { colors: pc.createColors(false), width: 80 }
const colored: Canvas = { colors: pc.createColors(true), width: 80 }
const drawn = (lines: string[]): string => `\n${lines.join('\n')}\n`

describe('in 80 columns, without colours', () => {
  test('a funnel has a bar a step, its shares, and the time it took', () => {
    expect(drawn(charts.funnel(steps(null, [1204, 561, 0]), {}, plain))).toBe(`
   step                                          actors  of all  of step  median
1  CLI Command Invoked  ███████████████████████   1,204  100.0%
2  Build Requested      ██████████▊                 561   46.6%    46.6%      2m
3  Build Succeeded                                    0    0.0%     0.0%       –
`)
  })

  test('a funnel that is broken down has a group for each value, whose bars are shares of its own', () => {
    const rows = [...steps('ios', [804, 402, 201]), ...steps(null, [4, 3, 3])]
    expect(drawn(charts.funnel(rows, { by: 'org', breakdown: 'platform' }, plain))).toBe(`
platform     step                                  orgs  of all  of step  median
ios       1  CLI Command Invoked  ███████████████   804  100.0%
          2  Build Requested      ███████▌          402   50.0%    50.0%      2m
          3  Build Succeeded      ███▊              201   25.0%    50.0%     31m
(none)    1  CLI Command Invoked  ███████████████     4  100.0%
          2  Build Requested      ███████████▎        3   75.0%    75.0%      2m
          3  Build Succeeded      ███████████▎        3   75.0%   100.0%     31m
`)
  })

  test('names with emoji and wide letters stay in line, are cut where there is no room, and have no power', () => {
    const names = ['📄 Report 日本語', 'Something whose name is much too long for a table 👩‍💻', 'Evil\u001b[2J\nname']
    expect(drawn(charts.funnel(steps(null, [12, 6, 3], names), {}, plain))).toBe(`
   step                                          actors  of all  of step  median
1  📄 Report 日本語                  ██████████      12  100.0%
2  Something whose name is much to…  █████            6   50.0%    50.0%      2m
3  Evil\\u001b[2J name                ██▌              3   25.0%    50.0%     31m
`)
  })

  test('a retention grid has a line a cohort, nothing for what has not come yet, and all together at its end', () => {
    const rows = [
      cohort('2026-10-05', 100, [100, 50, 25]), cohort('2026-10-12', 20, [20, 0]), cohort('2026-10-19', 1000, [900])].flat()
    expect(drawn(charts.retention(rows, {}, plain))).toBe(`
week        actors     0    1    2
2026-10-05     100  100%  50%  25%
2026-10-12      20  100%   0%
2026-10-19   1,000   90%
all          1,120   91%  42%  25%
`)
  })

  test('a retention grid of more periods than there is room for says so', () => {
    const rows = cohort('2026-10-01', 100, Array.from({ length: 14 }, (_, n) => 100 - n * 7))
    expect(drawn(charts.retention(rows, { period: 'month', by: 'org' }, plain))).toBe(`
month    orgs     0    1    2    3    4    5    6    7    8    9   10   11
2026-10   100  100%  93%  86%  79%  72%  65%  58%  51%  44%  37%  30%  23%
all       100  100%  93%  86%  79%  72%  65%  58%  51%  44%  37%  30%  23%
No room for 12, 13: a wider terminal shows all, and so does --csv.
`)
    const large = charts.retention(cohort('2026-10-05', 1_000_000, Array.from({ length: 12 }, () => 1)), {}, plain)
    expect(large.slice(1)).toEqual([
      `2026-10-05  1,000,000 ${'   0%'.repeat(11)}`, `all         1,000,000 ${'   0%'.repeat(11)}`,
      'No room for 11: a wider terminal shows all, and so does --csv.'])
  })

  test('who is active is a bar of three parts', () => {
    const rows = [
      { period: '2026-10-12', active: 60, returning: 30, resurrected: 10, new: 20 },
      { period: '2026-10-19', active: 0, returning: 0, resurrected: 0, new: 0 },
      { period: '2026-10-26', active: 30, returning: 0, resurrected: 0, new: 30 }]
    expect(drawn(charts.active(rows, { period: 'week' }, plain))).toBe(`
█ returning  ▓ resurrected  ░ new
week                                         actors  returning  resurrected  new
2026-10-12  ████████████████▓▓▓▓▓░░░░░░░░░░      60         30           10   20
2026-10-19                                        0          0            0    0
2026-10-26  ░░░░░░░░░░░░░░░░                     30          0            0   30
`)
  })

  test('builds are a bar of three parts, with times; below is why they failed', () => {
    const rows = [build({}), build({
      period: '2026-10-19', builds: 80, succeeded: 60, failed: 20, success_rate: 0.75, p50_run_seconds: null, p95_run_seconds: null,
      median_seconds_to_green: null, flakiness: null, failure_categories: { timeout: 18, builder_error: 2 } })]
    expect(drawn(charts.builds(rows, {}, plain))).toBe(`
█ succeeded  ▓ failed  ░ otherwise
week                        builds  success  run  p95  to fix  flaky  queue  p95
2026-10-12  █████▓░             40    75.0%   4m  15m    1.4h    25%     4s  44s
2026-10-19  ███████████▓▓▓      80    75.0%    –    –       –      –     4s  44s

why builds failed                                                         builds
timeout            █████████████████████████████████████████████████████      19
builder_error      ███████████████████████████▉                               10
`)
  })

  test('builds by app leave out what there is no room for, and say so', () => {
    const rows = [
      build({ by_value: 'com.acme.app' }), build({ by_value: null, failure_categories: {} }),
      build({ period: '2026-10-19', by_value: 'com.acme.app', failure_categories: {} })]
    expect(drawn(charts.builds(rows, { by: 'app' }, plain))).toBe(`
█ succeeded  ▓ failed  ░ otherwise
week        app                         builds  success  run  p95  to fix  flaky
2026-10-12  com.acme.app  ████████▓▓▓░      40    75.0%   4m  15m    1.4h    25%
            (none)        ████████▓▓▓░      40    75.0%   4m  15m    1.4h    25%
2026-10-19  com.acme.app  ████████▓▓▓░      40    75.0%   4m  15m    1.4h    25%
No room for queue, p95: a wider terminal shows all, and so does --csv.

why builds failed                                                         builds
builder_error      █████████████████████████████████████████████████████       8
timeout            ██████▋                                                     1
`)
  })

  test('surfaces are dots, with exactly these beside these or more', () => {
    const rows = [surface(['builder', 'cli'], 34), surface(['builder'], 0), surface(['cli'], 1504), surface(['dashboard'], 1)]
    expect(drawn(charts.surfaces(rows, {}, plain))).toBe(`
builder  cli  dashboard                           actors  or more  orgs  or more
   ●      ●       ·      ▌                            34       44     4      200
   ●      ·       ·                                    0       10     0      200
   ·      ●       ·      ███████████████████████   1,504    1,514   151      200
   ·      ·       ●      ▏                             1       11     1      200
`)
  })

  test('many surfaces are named, and those that nobody is seen on together are left out', () => {
    const names = ['mobile application', 'dashboard', 'command line', 'builder', 'documentation']
    const rows = [surface(names, 2), surface(names.slice(0, 2), 8), { ...surface(names.slice(1, 3), 0), actors_at_least: 0, orgs_at_least: 0 }]
    expect(drawn(charts.surfaces(rows, {}, plain))).toBe(`
surfaces                                          actors  or more  orgs  or more
mobile application + dashboard + co…  ██▌              2       12     1      200
mobile application + dashboard        ██████████       8       18     1      200
`)
  })

  test('paths are the ten most trodden ways of each step, and how many others there are', () => {
    const first = Array.from({ length: 13 }, (_, n) => way(1, 'CLI Command Invoked', n === 1 ? null : `Event ${n}`, 100 - n * 7))
    const rows = [...first, way(2, 'Event 0', 'Build Requested', 60), way(2, 'Event 2', 'Build Requested', 9), way(2, 'Event 2', null, 1)]
    expect(drawn(charts.paths(rows, {}, plain))).toBe(`
   after                   came                            paths  actors  median
1  CLI Command Invoked  →  Event 0          █████████████    100      34    1.7m
                        →  (the end)        ████████████▏     93      31       –
                        →  Event 2          ███████████▏      86      29    1.4m
                        →  Event 3          ██████████▎       79      27    1.3m
                        →  Event 4          █████████▍        72      24    1.2m
                        →  Event 5          ████████▌         65      22    1.1m
                        →  Event 6          ███████▌          58      20     58s
                        →  Event 7          ██████▋           51      17     51s
                        →  Event 8          █████▊            44      15     44s
                        →  Event 9          ████▊             37      13     37s
                           3 others                           69
2  Event 0              →  Build Requested  ███████▊          60      20      1m
   Event 2              →  Build Requested  █▏                 9       3      9s
                        →  (the end)        ▏                  1       1       –
`)
  })

  test('sessions are a line each', () => {
    expect(drawn(charts.sessions([session({}), session({ seconds: 0, events: 1, surfaces: null })], {}, plain))).toBe(`
began (UTC)       took  events  actor      surfaces     first event
2026-10-10 09:30   12m      14  1000…0001  builder cli  CLI Command Invoked
2026-10-10 09:30    0s       1  1000…0001               CLI Command Invoked
No room for last event: a wider terminal shows all, and so does --csv.
`)
  })

  test('activity is a line to take in at a glance, and a bar a period', () => {
    const rows = [0, 400, 691, 1, 233].map((events, n) => ({
      period: `2026-10-0${n + 1}T00:00:00+00:00`, events, actors: Math.ceil(events / 20), orgs: Math.min(events, 3) }))
    expect(drawn(charts.activity(rows, {}, plain))).toBe(`
events  ▁▆█▂▄  at most 691 a day
actors  ▁▅█▂▄  at most 35 a day
orgs    ▁██▄█  at most 3 a day

day (UTC)                                                   events  actors  orgs
2026-10-01                                                       0       0     0
2026-10-02  ██████████████████████████▋                        400      20     3
2026-10-03  ██████████████████████████████████████████████     691      35     3
2026-10-04  ▏                                                    1       1     1
2026-10-05  ███████████████▌                                   233      12     3
`)
    expect(charts.activity([{ ...rows[1]!, period: '2026-10-01T13:00:00+00:00' }], { period: 'hour' }, plain).at(-1)).toMatch(/^2026-10-01 13:00 {2}█/)
  })
})

describe('with colours', () => {
  test('a retention grid is brighter where more came back, and what is written on it can be read', () => {
    const [, line] = charts.retention(cohort('2026-10-05', 100, [100, 60, 40, 20, 1, 0]), {}, colored)
    const shade = (ink: number, ground: number, text: string) => `\u001b[38;5;${ink};48;5;${ground}m${text}\u001b[39;49m`
    expect(line).toBe(`2026-10-05     100  ${[
      shade(16, 220, '100% '), shade(16, 36, ' 60% '), shade(231, 31, ' 40% '), shade(231, 60, ' 20% '), shade(231, 53, '  1% '), '  0%'].join('')}`)
  })

  test('every chart says the same as without', () => {
    const rows = steps(null, [1204, 561, 338])
    const uncolored = (lines: string[]) => lines.map((line) => line.replace(/\u001b\[[\d;]*m/g, '').trimEnd())
    expect(uncolored(charts.funnel(rows, {}, colored))).toEqual(charts.funnel(rows, {}, plain))
    expect(charts.funnel(rows, {}, colored)[1]).toContain('\u001b[36m█')
    expect(uncolored(charts.builds([build({})], {}, colored))).toEqual(charts.builds([build({})], {}, plain))
    expect(charts.builds([build({})], {}, colored)[2]).toContain('\u001b[32m█')
  })
})

describe('a bar', () => {
  test.each([
    [0, ''], [0.0001, '▏'], [1 / 80, '▏'], [0.5, '█████'], [0.55, '█████▌'], [0.9875, '█████████▉'], [1, '██████████'],
  ])('of %d of ten columns is exact to an eighth, and never nothing where there is something', (share, bar) => {
    expect(charts.bar(share, 10)).toBe(bar)
  })
})

describe('a sparkline', () => {
  test('has nothing only where there is nothing, and its highest mark for the most', () => {
    expect(charts.sparkline([0, 1, 50, 99, 100], 10)).toBe('▁▂▅██')
    expect(charts.sparkline([0, 0], 10)).toBe('▁▁')
  })

  test('shows the highest of neighbours where there are more than there is room for', () => {
    expect(charts.sparkline([1, 8, 0, 0, 4, 0, 8], 4)).toBe('█▁▅█')
  })
})

describe('a time', () => {
  test.each([
    [null, '–'], [0, '0s'], [0.0004, '0ms'], [0.85, '850ms'], [1, '1s'], [2.54, '2.5s'], [9.96, '10s'], [59.4, '59s'], [60, '1m'],
    [126, '2.1m'], [3599.9, '1h'], [5400, '1.5h'], [86_400, '1d'], [864_000, '10d'],
  ])('of %s seconds is %s', (seconds, text) => {
    expect(charts.span(seconds)).toBe(text)
  })
})

describe('a table', () => {
  test('keeps its columns in line whatever is in them', () => {
    expect(asTable(['name', { heading: 'n', align: 'right' }], [['日本', '1'], ['👩‍💻 x', '10'], ['\u001b[31mred\u001b[39m', '2'], ['e\u0301', '3']])).toEqual([
      'name   n', '日本   1', '👩‍💻 x  10', '\u001b[31mred\u001b[39m    2', 'e\u0301      3'])
  })

  test('cuts no character in two', () => {
    expect([5, 4, 3, 2, 1].map((width) => fit('👩‍💻日本', width))).toEqual(['👩‍💻日…', '👩‍💻…', '👩‍💻…', '…', '…'])
    expect(fit('👩‍💻日本', 6)).toBe('👩‍💻日本')
  })
})

test('no chart is wider than the terminal, or prints what could move its cursor, whatever the events are called', () => {
  const name = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme', maxLength: 200 }))
  const count = fc.nat(9_999_999), share = fc.double({ min: 0, max: 1, noNaN: true }), seconds = fc.option(fc.double({ min: 0, max: 1e7, noNaN: true }))
  const date = fc.integer({ min: 0, max: 300 }).map((day) => new Date(Date.UTC(2026, 0, 1 + day)).toISOString().slice(0, 10))
  const record = <T extends object>(model: { [name in keyof T]: fc.Arbitrary<T[name]> }) => fc.array(fc.record(model) as fc.Arbitrary<T>, { minLength: 1, maxLength: 8 })
  const rows = fc.record({
    funnel: record<FunnelRow>({ breakdown: fc.option(name), step: fc.integer({ min: 1, max: 20 }), event: name, subjects: count, conversion: share, step_conversion: fc.option(share), median_seconds: seconds }),
    retention: record<RetentionRow>({ cohort: date, size: count, period: fc.nat(30), subjects: count, share })
      .map((rows) => rows.map((row) => ({ ...row, subjects: Math.min(row.subjects, row.size) }))),
    builds: record<BuildsRow>({
      period: date, by_value: fc.option(name), builds: fc.constant(9_999_999), succeeded: fc.nat(5_000_000), failed: fc.nat(4_000_000), success_rate: fc.option(share),
      p50_run_seconds: seconds, p95_run_seconds: seconds, p50_queue_seconds: seconds, p95_queue_seconds: seconds,
      failure_categories: fc.dictionary(name, count), median_seconds_to_green: seconds, flakiness: fc.option(share) }),
    surfaces: record<SurfacesRow>({ surfaces: fc.array(name, { minLength: 1, maxLength: 5 }), actors: count, actors_at_least: count, orgs: count, orgs_at_least: count }),
    paths: record<PathsRow>({ step: fc.integer({ min: 1, max: 3 }), source: name, target: fc.option(name), paths: count, actors: count, median_seconds: seconds }),
    sessions: record<SessionsRow>({
      actor_id: fc.uuid(), started_at: date, ended_at: date, seconds: fc.double({ min: 0, max: 1e7, noNaN: true }), events: count,
      first_event: name, last_event: name, surfaces: fc.option(fc.array(name)), orgs: fc.constant([]) }),
  })
  fc.assert(fc.property(rows, fc.integer({ min: 80, max: 200 }), name, (all, width, tag) => {
    const canvas = { ...plain, width }
    const lines = [
      charts.funnel(all.funnel, {}, canvas), charts.funnel(all.funnel, { breakdown: tag }, canvas), charts.retention(all.retention, {}, canvas),
      charts.builds(all.builds, {}, canvas), charts.builds(all.builds, { by: 'app' }, canvas), charts.surfaces(all.surfaces, {}, canvas),
      charts.paths(all.paths, {}, canvas), charts.sessions(all.sessions, {}, canvas)].flat()
    for (const line of lines) {
      expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/)
      expect(stringWidth(line), line).toBeLessThanOrEqual(width)
    }
  }), { numRuns: 100 })
})

function steps(breakdown: string | null, counts: number[], names = ['CLI Command Invoked', 'Build Requested', 'Build Succeeded']): FunnelRow[] {
  return counts.map((subjects, i) => ({
    breakdown, step: i + 1, event: names[i]!, subjects, conversion: subjects / counts[0]!, step_conversion: subjects / counts[Math.max(i - 1, 0)]!,
    median_seconds: i === 0 || subjects === 0 ? null : [0, 123, 1840][i]! }))
}

function cohort(date: string, size: number, counts: number[]): RetentionRow[] {
  return counts.map((subjects, period) => ({ cohort: date, size, period, subjects, share: subjects / size }))
}

function build(change: Partial<BuildsRow>): BuildsRow {
  return {
    period: '2026-10-12', by_value: null, builds: 40, succeeded: 27, failed: 9, success_rate: 0.75, p50_run_seconds: 240, p95_run_seconds: 900,
    p50_queue_seconds: 4, p95_queue_seconds: 44.2, failure_categories: { builder_error: 8, timeout: 1 }, median_seconds_to_green: 5000, flakiness: 0.25, ...change }
}

function surface(surfaces: string[], actors: number): SurfacesRow {
  return { surfaces, actors, actors_at_least: actors + 10, orgs: Math.ceil(actors / 10), orgs_at_least: 200 }
}

function way(step: number, source: string, target: string | null, paths: number): PathsRow {
  return { step, source, target, paths, actors: Math.ceil(paths / 3), median_seconds: target === null ? null : paths }
}

function session(change: Partial<SessionsRow>): SessionsRow {
  return {
    actor_id: '10000000-0000-4000-8000-000000000001', started_at: '2026-10-10T09:30:12.123+00:00', ended_at: '2026-10-10T09:42:12.123+00:00', seconds: 720,
    events: 14, first_event: 'CLI Command Invoked', last_event: 'Build Succeeded', surfaces: ['builder', 'cli'], orgs: [], ...change }
}
