import * as Plot from '@observablehq/plot'
import { useCallback } from 'preact/hooks'
import { Choice, Figure, Legend, Select, Table } from './figure.tsx'
import { count, many, periodName } from './format.ts'
import { Page } from './page.tsx'
import { grid, intervals, periodAxis, Plotted } from './plotted.tsx'
import { active, type ActiveRow, type By, type Period } from './questions.ts'
import { choose } from './route.ts'
import { Answered, NoEvents } from './states.tsx'
import { useAnswer, useFilters, useWorld } from './world.ts'

const parts = {
  new: { name: 'New', color: 'var(--chart-strong)', about: 'never seen before' },
  returning: { name: 'Returning', color: 'var(--chart)', about: 'seen in the period before, too' },
  resurrected: { name: 'Back again', color: 'var(--chart-warm)', about: 'seen before, but not in the period before' },
}
type Part = keyof typeof parts

/** Who is there: for the first time, still, or again. */
export function Active() {
  const filters = useFilters()
  const { params } = useWorld().route
  const by = (params.get('by') ?? 'actor') as By
  const period = (params.get('period') ?? 'week') as Period
  const question = active(by, period, filters)
  const answer = useAnswer(question)
  return (
    <Page title="Active" lead="Who is there: for the first time, still, or again." filters={['app', 'range']}>
      <Answered answer={answer} empty={<NoEvents />}>
        {(rows) => {
          if (rows.every((row) => row.active === 0)) return <NoEvents />
          const words = summaryOf(rows, by, period)
          return (
            <Figure
              title={`Active ${by === 'org' ? 'organizations' : 'people'} a ${period}`}
              summary={words}
              question={question}
              controls={
                <div class="controls">
                  <Choice label="Count" value={by} options={{ actor: 'People', org: 'Organizations' }} onChoose={(next) => choose({ by: next })} />
                  <Select label="Per" value={period} options={{ day: 'Day', week: 'Week', month: 'Month' }} onChoose={(next) => choose({ period: next })} />
                  <Legend items={Object.values(parts).map(({ color, name, about }) => [color, `${name}: ${about}`])} />
                </div>}
              chart={<Stack rows={rows} period={period} label={words} />}
              table={<Table caption={`Active a ${period}`} rows={rows.toReversed()} columns={[
                { head: 'Period', cell: (row) => periodName(row.period, period) },
                { head: 'Active', cell: (row) => count(row.active), isNumber: true },
                ...(Object.keys(parts) as Part[]).map((part) => ({ head: parts[part].name, cell: (row: ActiveRow) => count(row[part]), isNumber: true })),
              ]} />} />
          )
        }}
      </Answered>
    </Page>
  )
}

function summaryOf(rows: ActiveRow[], by: By, period: Period): string {
  const last = rows.at(-1) as ActiveRow
  const who = by === 'org' ? many(last.active, 'organization') : many(last.active, 'person', 'people')
  const news = rows.reduce((sum, row) => sum + row.new, 0)
  return `${who} in the latest ${period}: ${count(last.new)} new, ${count(last.returning)} returning, ${count(last.resurrected)} back again. ` +
    `${count(news)} came for the first time in the whole range.`
}

function Stack({ rows, period, label }: { rows: ActiveRow[], period: Period, label: string }) {
  const draw = useCallback((width: number): Plot.PlotOptions => {
    const data = rows.flatMap((row) => (['returning', 'resurrected', 'new'] as const).map((part) => ({ at: new Date(row.period), part, value: row[part] }))).filter(({ value }) => value > 0)
    const title = (row: ActiveRow) => `${periodName(row.period, period)}\n${count(row.active)} active\n` +
      (Object.keys(parts) as Part[]).map((part) => `${count(row[part])} ${parts[part].name.toLowerCase()}`).join('\n')
    return {
      height: 300,
      x: { type: 'utc' },
      color: { domain: Object.keys(parts), range: Object.values(parts).map(({ color }) => color) },
      marks: [
        ...grid(),
        periodAxis(rows.map((row) => row.period), period, width),
        Plot.rectY(data, { x: 'at', y: 'value', fill: 'part', interval: intervals[period], insetLeft: Math.min(3, width / rows.length / 10), insetRight: Math.min(3, width / rows.length / 10), insetTop: 0.5, insetBottom: 0.5 }),
        Plot.ruleY([0], { stroke: 'var(--line-strong)' }),
        Plot.tip(rows, Plot.pointerX({ x: (row: ActiveRow) => new Date(row.period), y: 'active', title })),
      ],
    }
  }, [rows, period])
  return <Plotted label={label} draw={draw} />
}
