import { EventInput, useKinds } from './event-input.tsx'
import { Choice, Figure, Select } from './figure.tsx'
import { count, many, percent, periodName } from './format.ts'
import { Page } from './page.tsx'
import { retention, type By, type Period, type RetentionRow } from './questions.ts'
import { choose } from './route.ts'
import { Answered, Empty, NoEvents } from './states.tsx'
import { useAnswer, useFilters, useWorld } from './world.ts'

const periodsOf: Record<string, number> = { day: 14, week: 12, month: 12 }

/** Who comes back. */
export function Retention() {
  const filters = useFilters()
  const { params } = useWorld().route
  const known = useKinds()
  const first = params.get('first') ?? known.rows?.[0]?.event
  const again = params.get('again') ?? undefined
  const by = (params.get('by') ?? 'actor') as By
  const period = (params.get('period') ?? 'week') as Period
  const question = first ? retention({ first_event: first, return_event: again, period, by, periods: periodsOf[period] ?? 12 }, filters) : undefined
  const answer = useAnswer(question)
  const shown = { ...answer, rows: answer.rows?.filter(({ cohort }) => !filters.since || Date.parse(cohort) >= periodBegin(filters.since, period)) }
  return (
    <Page title="Retention" lead="Of those who did something for the first time, how many came back, and when." filters={['app', 'range']}>
      <section class="card builder" aria-label="What is asked">
        <div class="controls">
          <EventInput label="First did" value={first ?? ''} kinds={known.rows} onChoose={(event) => choose({ first: event })} />
          <EventInput label="Then did" value={again ?? ''} kinds={known.rows} placeholder="the same" onChoose={(event) => choose({ again: event })} />
          <Select label="Per" value={period} options={{ day: 'Day', week: 'Week', month: 'Month' }} onChoose={(next) => choose({ period: next })} />
          <Choice label="Count" value={by} options={{ actor: 'People', org: 'Organizations' }} onChoose={(next) => choose({ by: next })} />
        </div>
      </section>
      {question
        ? (
          <Answered answer={shown} empty={<Empty title="Nobody to follow"><p>Nobody did “{first}” for the first time in this range. Choose a longer range, or another event.</p></Empty>}>
            {(rows) => <Figure title={`${by === 'org' ? 'Organizations' : 'People'} who came back, by ${period}`} summary={summaryOf(rows, by, period)} question={question}
              chart={<Grid rows={rows} period={period} />} />}
          </Answered>
        )
        : <Answered answer={known} empty={<NoEvents />}>{() => null}</Answered>}
    </Page>
  )
}

/** The first moment of the period that a time lies in, in UTC; weeks begin on Monday. */
function periodBegin(time: string, period: Period): number {
  const at = new Date(time)
  at.setUTCHours(0, 0, 0, 0)
  if (period === 'week') at.setUTCDate(at.getUTCDate() - (at.getUTCDay() + 6) % 7)
  if (period === 'month') at.setUTCDate(1)
  return at.getTime()
}

/** Of all cohorts that have come as far as a period, the share that was there. */
function overall(rows: RetentionRow[], period: number): number | undefined {
  const reached = rows.filter((row) => row.period === period)
  const size = reached.reduce((sum, row) => sum + row.size, 0)
  return size ? reached.reduce((sum, row) => sum + row.subjects, 0) / size : undefined
}

function summaryOf(rows: RetentionRow[], by: By, period: Period): string {
  const size = rows.reduce((sum, row) => sum + (row.period === 0 ? row.size : 0), 0)
  const back = [1, 4].map((n) => [n, overall(rows, n)] as const).flatMap(([n, share]) => (share === undefined ? [] : [`${percent(share)} in ${period} ${n}`]))
  const who = by === 'org' ? many(size, 'organization') : many(size, 'person', 'people')
  return `${who} in ${many(new Set(rows.map(({ cohort }) => cohort)).size, 'cohort')}.${back.length ? ` Came back: ${back.join(', ')}.` : ''}`
}

function Grid({ rows, period }: { rows: RetentionRow[], period: Period }) {
  const cohorts = [...Map.groupBy(rows, ({ cohort }) => cohort)]
  const last = Math.max(...rows.map((row) => row.period))
  const periods = Array.from({ length: last + 1 }, (_, n) => n)
  return (
    <div class="scroller" tabIndex={0} role="group" aria-label="Retention by cohort">
      <table class="heat">
        <caption class="visually-hidden">Share of each cohort that was there again, by {period}s after the first time</caption>
        <thead>
          <tr>
            <th scope="col">Since</th>
            <th scope="col" class="number">Size</th>
            {periods.map((n) => <th key={n} scope="col" class="cell">{n === 0 ? `${period} 0` : n}</th>)}
          </tr>
        </thead>
        <tbody>
          {cohorts.map(([cohort, cells]) => (
            <tr key={cohort}>
              <th scope="row">{periodName(cohort, period).replace('Week of ', '')}</th>
              <td class="number">{count(cells[0]?.size ?? 0)}</td>
              {periods.map((n) => {
                const cell = cells.find((one) => one.period === n)
                if (!cell) return <td key={n} class="cell none"><span class="visually-hidden">not yet</span></td>
                return <Cell key={n} share={cell.share} title={`${count(cell.subjects)} of ${count(cell.size)} in ${period} ${n}`} />
              })}
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">All together</th>
            <td class="number">{count(cohorts.reduce((sum, [, cells]) => sum + (cells[0]?.size ?? 0), 0))}</td>
            {periods.map((n) => <Cell key={n} share={overall(rows, n) ?? 0} />)}
          </tr>
        </tfoot>
      </table>
    </div>
  )
}

const Cell = ({ share, title }: { share: number, title?: string }) => (
  <td class="cell" style={{ '--share': share }} title={title}>{percent(Math.round(share * 100) / 100)}</td>
)
