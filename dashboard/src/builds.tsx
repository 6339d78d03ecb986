import * as Plot from '@observablehq/plot'
import { useCallback } from 'preact/hooks'
import { Figure, Legend, Select, Table, type Column } from './figure.tsx'
import { count, dateAndTime, duration, many, percent, periodName, shortDate, shortId } from './format.ts'
import { Page } from './page.tsx'
import { PersonLink, useNames } from './person-link.tsx'
import { durationTicks, grid, intervals, middleOf, periodAxis, Plotted } from './plotted.tsx'
import { buildHealth, latestBuilds, type BuildRow, type HealthRow, type Period } from './questions.ts'
import { choose, linkTo } from './route.ts'
import { Answered, Copyable, Empty } from './states.tsx'
import { useAnswer, useFilters, useWorld } from './world.ts'

const failures: Record<string, string> = {
  timeout: 'Timed out', validation_error: 'Not valid', builder_error: 'Builder failed', unknown: 'Unknown',
}

/** How builds fare. */
export function Builds() {
  const filters = useFilters()
  const { route } = useWorld()
  const period = (route.params.get('period') ?? 'week') as Period
  const by = route.params.get('by') ?? ''
  const question = buildHealth(period, undefined, filters)
  const health = useAnswer(question)
  const latestQuestion = latestBuilds(filters, 25)
  const latest = useAnswer(latestQuestion)
  return (
    <Page title="Builds" lead="How builds fare: how many succeed, how long they wait and run, and why they fail." filters={['app', 'range']}>
      <Answered answer={health} empty={<NoBuilds />}>
        {(rows) => (
          <>
            <Tiles rows={rows} period={period} />
            <Outcomes rows={rows} period={period} question={question} />
            <Times rows={rows} period={period} question={question} />
            <Failures rows={rows} question={question} />
            <Compared by={by} />
          </>
        )}
      </Answered>
      <Answered answer={latest} empty={null}>
        {(rows) => <Figure title="Latest builds" question={latestQuestion} summary="Choose one to see its steps." chart={<BuildTable rows={rows} />} />}
      </Answered>
    </Page>
  )
}

function NoBuilds() {
  const { apps, route, viewer } = useWorld()
  const org = route.params.get('org')
  const app = route.params.get('app') ?? apps.find(({ owner_org }) => !org || owner_org === org)?.app_id
  return (
    <Empty title="No builds here yet">
      <p>No build has ended for what is chosen above. Choose a longer range{app ? ', or ask for one:' : '.'}</p>
      {app && <Copyable text={`ACTORSCOPE_EMAIL=${viewer.email} npx actorscope build request ${app} --platform ios`} />}
    </Empty>
  )
}

const total = (rows: HealthRow[], pick: (row: HealthRow) => number) => rows.reduce((sum, row) => sum + pick(row), 0)
const failedIn = (row: HealthRow) => Object.values(row.failure_categories ?? {}).reduce((sum, n) => sum + n, 0)

function Tiles({ rows, period }: { rows: HealthRow[], period: Period }) {
  const succeeded = total(rows, (row) => row.succeeded)
  const failed = total(rows, failedIn)
  const latest = (name: string, pick: (row: HealthRow) => number | null, write: (value: number) => string) => {
    const row = rows.findLast((one) => pick(one) !== null)
    const value = row && pick(row)
    return <div class="tile"><dt>{name}</dt><dd>{value == null ? '–' : write(value)} <span>{row ? whenOf(row, rows, period) : ''}</span></dd></div>
  }
  return (
    <dl class="tiles">
      <div class="tile strong"><dt>Succeeded</dt><dd>{succeeded + failed ? percent(succeeded / (succeeded + failed)) : '–'} <span>of {many(total(rows, (row) => row.builds), 'build')}</span></dd></div>
      {latest('Run time, median', (row) => row.p50_run_seconds, duration)}
      {latest('Waiting, median', (row) => row.p50_queue_seconds, duration)}
      {latest('Failed until green, median', (row) => row.median_seconds_to_green, duration)}
      {latest('Flaky failures', (row) => row.flakiness, percent)}
    </dl>
  )
}

const whenOf = (row: HealthRow, rows: HealthRow[], period: Period) =>
  (row === rows.at(-1) ? `latest ${period}` : period === 'month' ? periodName(row.period, period) : `${period === 'week' ? 'week of ' : ''}${shortDate(row.period)}`)

type PartProps = { rows: HealthRow[], period: Period, question: ReturnType<typeof buildHealth> }

const outcomes = { Succeeded: 'var(--good)', Failed: 'var(--bad)', Other: 'var(--other)' }

function Outcomes({ rows, period, question }: PartProps) {
  const words = `${many(total(rows, (row) => row.builds), 'build')} ended: ${count(total(rows, (row) => row.succeeded))} succeeded, ` +
    `${count(total(rows, failedIn))} failed or timed out; the others were cancelled or never ran.`
  const draw = useCallback((width: number): Plot.PlotOptions => {
    const data = rows.flatMap((row) => Object.entries({ Succeeded: row.succeeded, Failed: failedIn(row), Other: row.builds - row.succeeded - failedIn(row) })
      .map(([outcome, value]) => ({ at: new Date(row.period), outcome, value })))
      .filter(({ value }) => value > 0)
    const title = (row: HealthRow) => `${periodName(row.period, period)}\n${many(row.builds, 'build')}\n${row.success_rate === null ? '' : `${percent(row.success_rate)} succeeded`}`
    return {
      height: 240,
      x: { type: 'utc' },
      color: { domain: Object.keys(outcomes), range: Object.values(outcomes) },
      marks: [
        ...grid(),
        periodAxis(rows.map((row) => row.period), period, width),
        Plot.rectY(data, { x: 'at', y: 'value', fill: 'outcome', interval: intervals[period], insetLeft: Math.min(3, width / rows.length / 10), insetRight: Math.min(3, width / rows.length / 10), insetTop: 0.5, insetBottom: 0.5 }),
        Plot.ruleY([0], { stroke: 'var(--line-strong)' }),
        Plot.tip(rows, Plot.pointerX({ x: (row: HealthRow) => new Date(row.period), y: 'builds', title })),
      ],
    }
  }, [rows, period])
  return (
    <Figure title={`Builds a ${period}`} summary={words} question={question} table={<HealthTable rows={rows} period={period} />}
      controls={
        <div class="controls">
          <Select label="Per" value={period} options={{ day: 'Day', week: 'Week', month: 'Month' }} onChoose={(next) => choose({ period: next })} />
          <Legend items={[[outcomes.Succeeded, 'Succeeded'], [outcomes.Failed, 'Failed or timed out'], [outcomes.Other, 'Cancelled or never ran']]} />
        </div>}
      chart={<Plotted label={words} draw={draw} />} />
  )
}

function Times({ rows, period, question }: PartProps) {
  const ran = rows.filter((row) => row.p50_run_seconds !== null)
  const last = ran.at(-1)
  const words = last
    ? `In the latest ${period}, half of the builds ran for at most ${duration(last.p50_run_seconds ?? 0)}, 95 of 100 for at most ${duration(last.p95_run_seconds ?? 0)}.`
    : 'No build has run.'
  const middle = (row: HealthRow) => middleOf(row.period, period)
  const draw = useCallback((width: number): Plot.PlotOptions => ({
    height: 220,
    marginLeft: 56,
    x: { type: 'utc' },
    y: { zero: true },
    marks: [
      ...grid({ ticks: durationTicks(Math.max(...ran.map((row) => row.p95_run_seconds ?? 0))), tickFormat: duration }),
      periodAxis(ran.map((row) => row.period), period, width),
      Plot.areaY(ran, { x: middle, y1: 'p50_run_seconds', y2: 'p95_run_seconds', fill: 'var(--accent)', fillOpacity: 0.12, }),
      Plot.lineY(ran, { x: middle, y: 'p95_run_seconds', stroke: 'var(--accent)', strokeOpacity: 0.6, strokeDasharray: '4 3', }),
      Plot.lineY(ran, { x: middle, y: 'p50_run_seconds', stroke: 'var(--accent)', strokeWidth: 2, }),
      Plot.tip(ran, Plot.pointerX({ x: middle, y: 'p50_run_seconds',
        title: (row: HealthRow) => `${periodName(row.period, period)}\nmedian ${duration(row.p50_run_seconds ?? 0)}\n95th percentile ${duration(row.p95_run_seconds ?? 0)}` })),
    ],
  }), [rows, period])
  return (
    <Figure title="How long builds run" summary={words} question={question} table={<HealthTable rows={rows} period={period} />}
      controls={<div class="controls"><Legend items={[['var(--accent)', 'Median'], ['color-mix(in srgb, var(--accent) 40%, transparent)', 'To the 95th percentile']]} /></div>}
      chart={<Plotted label={words} draw={draw} />} />
  )
}

function HealthTable({ rows, period }: { rows: HealthRow[], period: Period }) {
  return <Table caption={`Builds a ${period}`} rows={rows.toReversed()} columns={[{ head: 'Period', cell: (row) => periodName(row.period, period) }, ...healthColumns]} />
}

const seconds = (value: number | null) => (value === null ? '–' : duration(value))
const healthColumns: Column<HealthRow>[] = [
  { head: 'Builds', cell: (row) => count(row.builds), isNumber: true },
  { head: 'Succeeded', cell: (row) => (row.success_rate === null ? '–' : percent(row.success_rate)), isNumber: true },
  { head: 'Run, median', cell: (row) => seconds(row.p50_run_seconds), isNumber: true },
  { head: 'Run, 95%', cell: (row) => seconds(row.p95_run_seconds), isNumber: true },
  { head: 'Waiting, median', cell: (row) => seconds(row.p50_queue_seconds), isNumber: true },
  { head: 'Waiting, 95%', cell: (row) => seconds(row.p95_queue_seconds), isNumber: true },
  { head: 'Until green', cell: (row) => seconds(row.median_seconds_to_green), isNumber: true },
  { head: 'Flaky', cell: (row) => (row.flakiness === null ? '–' : percent(row.flakiness)), isNumber: true },
]

function Failures({ rows, question }: { rows: HealthRow[], question: PartProps['question'] }) {
  const sums = new Map<string, number>()
  for (const row of rows) for (const [category, n] of Object.entries(row.failure_categories ?? {})) sums.set(category, (sums.get(category) ?? 0) + n)
  const sorted = [...sums].sort(([, a], [, b]) => b - a)
  const all = sorted.reduce((sum, [, n]) => sum + n, 0)
  if (!all) return null
  return (
    <Figure title="Why builds fail" summary={`${many(all, 'failure')}; most often: ${failures[sorted[0]?.[0] ?? '']?.toLowerCase() ?? sorted[0]?.[0]}.`} question={question}
      chart={<Table caption="Failures by category" rows={sorted} columns={[
        { head: 'Category', cell: ([category]) => failures[category] ?? category },
        { head: 'Failures', cell: ([, n]) => <span class="long-bar bad" style={{ '--share': n / (sorted[0]?.[1] ?? 1) }}><span>{count(n)}</span></span> },
        { head: 'Share', cell: ([, n]) => percent(n / all), isNumber: true },
      ]} />} />
  )
}

/** The same figures for apps, platforms or modes, side by side, over the whole range. */
function Compared({ by }: { by: string }) {
  const filters = useFilters()
  const names = useNames()
  const chosen = by || 'platform'
  const question = buildHealth('month', chosen, filters)
  const answer = useAnswer(question)
  const options = { app: 'App', org: 'Organization', platform: 'Platform', build_mode: 'Mode', actor: 'Person' }
  const called = (value: string | null) => {
    if (value === null) return '–'
    if (chosen === 'actor') return <PersonLink id={value} />
    return chosen === 'app' ? names.app(value) : chosen === 'org' ? names.org(value) : value
  }
  return (
    <Answered answer={answer} empty={null}>
      {(rows) => (
        <Figure title="Side by side" summary="By month, the latest first." question={question}
          controls={<div class="controls"><Select label="By" value={chosen} options={options} onChoose={(next) => choose({ by: next })} /></div>}
          chart={<Table caption={`Builds by ${options[chosen as keyof typeof options]}`} rows={rows.toReversed()} columns={[
            { head: options[chosen as keyof typeof options], cell: (row) => called(row.by_value) },
            { head: 'Month', cell: (row) => periodName(row.period, 'month') },
            ...healthColumns,
          ]} />} />
      )}
    </Answered>
  )
}

/** How a build stands, in a word and a color. */
export function Status({ status }: { status: string }) {
  const color = status === 'succeeded' ? 'good' : ['failed', 'timed_out'].includes(status) ? 'bad' : ['pending', 'running'].includes(status) ? 'busy' : 'other'
  return <span class={`status ${color}`}>{status.replace('_', ' ')}</span>
}

function BuildTable({ rows }: { rows: BuildRow[] }) {
  const { route } = useWorld()
  const names = useNames()
  return (
    <Table caption="Latest builds" rows={rows} columns={[
      { head: 'Build', cell: (row) => <a class="id" href={linkTo(route, 'builds', row.build_id)}>{shortId(row.build_id)}</a> },
      { head: 'Status', cell: (row) => <Status status={row.status} /> },
      { head: 'App', cell: (row) => names.app(row.app_id) },
      { head: 'Platform', cell: (row) => `${row.platform}, ${row.build_mode}` },
      { head: 'By', cell: (row) => <PersonLink id={row.actor_id} /> },
      { head: 'Requested (UTC)', cell: (row) => dateAndTime(row.requested_at) },
      { head: 'Waited', cell: (row) => seconds(row.queue_seconds), isNumber: true },
      { head: 'Ran', cell: (row) => seconds(row.run_seconds), isNumber: true },
    ]} />
  )
}
