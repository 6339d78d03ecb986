import * as Plot from '@observablehq/plot'
import { useCallback } from 'preact/hooks'
import { Choice, Figure, Select, Table } from './figure.tsx'
import { daysIn, type Filters } from './filters.ts'
import { count, dateAndTime, many, periodName } from './format.ts'
import { Page } from './page.tsx'
import { SurfaceDots } from './person-link.tsx'
import { grid, intervals, periodAxis, Plotted } from './plotted.tsx'
import { activity, kinds, type ActivityRow, type Kind, type Period } from './questions.ts'
import { choose } from './route.ts'
import { Answered, NoEvents } from './states.tsx'
import { useAnswer, useFilters, useWorld } from './world.ts'

const measures = { events: 'Events', actors: 'People', orgs: 'Orgs' }
type Measure = keyof typeof measures

/** How much happens, and what. */
export function Activity() {
  const filters = useFilters()
  const { params } = useWorld().route
  const event = params.get('event') ?? undefined
  const measure = (params.get('measure') ?? 'events') as Measure
  const period = (params.get('period') ?? fitting(filters)) as Period
  const question = activity(period, event, filters)
  const volume = useAnswer(question)
  const kindsQuestion = kinds(filters)
  const known = useAnswer(kindsQuestion)
  return (
    <Page title="Activity" lead="How much happens, and what." filters={['app', 'range']}>
      <Answered answer={volume} empty={<NoEvents />}>
        {(rows) => {
          if (rows.every(({ events }) => events === 0)) return <NoEvents />
          const words = summaryOf(rows, measure, period)
          return (
            <Figure
              title={`${measures[measure]} ${per[period]}${event ? `: ${event}` : ''}`}
              summary={words}
              question={question}
              controls={
                <div class="controls">
                  <Choice label="Count" value={measure} options={measures} onChoose={(next) => choose({ measure: next })} />
                  <Select label="Per" value={period} options={{ hour: 'Hour', day: 'Day', week: 'Week', month: 'Month' }} onChoose={(next) => choose({ period: next })} />
                  {event && <button type="button" class="button" onClick={() => choose({ event: null })}>Show all events</button>}
                </div>}
              chart={<Bars rows={rows} measure={measure} period={period} label={words} />}
              table={<Table caption={`Activity ${per[period]}`} rows={rows.toReversed()} columns={[
                { head: 'Period', cell: (row) => periodName(row.period, period) },
                { head: 'Events', cell: (row) => count(row.events), isNumber: true },
                { head: 'People', cell: (row) => count(row.actors), isNumber: true },
                { head: 'Organizations', cell: (row) => count(row.orgs), isNumber: true },
              ]} />} />
          )
        }}
      </Answered>
      <Answered answer={known} empty={null}>
        {(rows) => (
          <Figure title="Kinds of events" summary={`${many(rows.length, 'kind')} of events, the most frequent first. Choose one to see it alone.`} question={kindsQuestion}
            chart={<Kinds rows={rows} event={event} />} />
        )}
      </Answered>
    </Page>
  )
}

const per: Record<Period, string> = { hour: 'an hour', day: 'a day', week: 'a week', month: 'a month' }

export function fitting(filters: Filters): Period {
  const days = daysIn(filters) ?? 1000
  return days <= 2 ? 'hour' : days <= 120 ? 'day' : 'week'
}

function summaryOf(rows: ActivityRow[], measure: Measure, period: Period): string {
  const top = rows.reduce((most, row) => (row[measure] > most[measure] ? row : most))
  const when = { hour: 'on ', day: 'on ', week: 'in the week of ', month: 'in ' }[period]
  const best = `most ${when}${periodName(top.period, period).replace('Week of ', '')}: ${count(top[measure])}`
  if (measure !== 'events') return `${measures[measure]} with at least one event; ${best}.`
  const total = rows.reduce((sum, row) => sum + row.events, 0)
  return `${many(total, 'event')} in all; ${best}.`
}

function Bars({ rows, measure, period, label }: { rows: ActivityRow[], measure: Measure, period: Period, label: string }) {
  const draw = useCallback((width: number): Plot.PlotOptions => {
    const data = rows.map((row) => ({ at: new Date(row.period), value: row[measure] }))
    return {
      height: 260,
      x: { type: 'utc' },
      y: { zero: true },
      marks: [
        ...grid({ tickFormat: 's' }),
        periodAxis(rows.map((row) => row.period), period, width),
        Plot.rectY(data.filter(({ value }) => value > 0), { x: 'at', y: 'value', interval: intervals[period], fill: 'var(--chart)', inset: Math.min(1.5, width / rows.length / 10), ry2: 2 }),
        Plot.ruleY([0], { stroke: 'var(--line-strong)' }),
        Plot.tip(data, Plot.pointerX({ x: 'at', y: 'value', title: (d: { at: Date, value: number }) => `${periodName(d.at.toISOString(), period)}\n${count(d.value)} ${measures[measure].toLowerCase()}` })),
      ],
    }
  }, [rows, measure, period])
  return <Plotted label={label} draw={draw} />
}

function Kinds({ rows, event }: { rows: Kind[], event?: string }) {
  const most = Math.max(...rows.map(({ events }) => events))
  return (
    <Table caption="Kinds of events" rows={rows} columns={[
      { head: 'Event', cell: (row) => (
        <button type="button" class="link" aria-pressed={row.event === event} onClick={() => choose({ event: row.event === event ? null : row.event })}>{row.event}</button>
      ) },
      { head: 'Events', isNumber: true, cell: (row) => <span class="bar-cell" style={{ '--share': row.events / most }}><span>{count(row.events)}</span></span> },
      { head: 'People', isNumber: true, cell: (row) => count(row.actors) },
      { head: 'Orgs', isNumber: true, cell: (row) => count(row.orgs) },
      { head: 'Channel', cell: (row) => <span class="faint">{row.channel}</span> },
      { head: 'Surface', cell: (row) => (row.surface ? <SurfaceDots surfaces={[row.surface]} /> : <span class="faint">none</span>) },
      { head: 'Last seen (UTC)', cell: (row) => <time dateTime={row.last_seen}>{dateAndTime(row.last_seen)}</time> },
    ]} />
  )
}
