import * as Plot from '@observablehq/plot'
import { useCallback, useState } from 'preact/hooks'
import { Figure, Table } from './figure.tsx'
import { ago, count, date, dateAndTime, many } from './format.ts'
import { Page } from './page.tsx'
import { SurfaceDots, surfaceName, useNames } from './person-link.tsx'
import { Plotted, timeAxis } from './plotted.tsx'
import { actor, eventsOf, type ActorRow, type EventRow } from './questions.ts'
import { Answered, Copyable, Empty } from './states.tsx'
import { Timeline } from './timeline.tsx'
import { useAnswer, useFilters } from './world.ts'

const step = 50

/** One person: when and where they were seen, and all that they did. */
export function Person({ id }: { id: string }) {
  const names = useNames()
  const filters = useFilters()
  const [room, setRoom] = useState(step)
  const known = useAnswer(actor(id))
  const question = eventsOf(id, filters, room + 1)
  const events = useAnswer(question)
  return (
    <Page title={`Person: ${names.person(id)}`} lead={<>All that they did, as far as you may see it. <Copyable text={id} isInline /></>} filters={['app', 'range']}>
      <Answered answer={known} empty={<Unknown id={id} />}>
        {([row]) => row && <Facts row={row} />}
      </Answered>
      {known.rows?.length === 1 && (
        <Answered answer={events} empty={<Empty title="Nothing in this range"><p>They did nothing for what is chosen above. Choose a longer range, or “All that I may see”.</p></Empty>}>
          {(rows) => {
            const shown = rows.slice(0, room)
            const words = `${rows.length > room ? `The latest ${count(room)} events` : many(rows.length, 'event')}, by surface and time.`
            return (
              <>
                <Figure title="Where and when" summary={words} question={question} chart={<Lanes rows={shown} label={words} />}
                  table={<Table caption="Events" rows={shown} columns={[
                    { head: 'Time (UTC)', cell: (event) => dateAndTime(event.occurred_at) },
                    { head: 'Event', cell: (event) => event.event },
                    { head: 'Surface', cell: (event) => (event.surface ? surfaceName(event.surface) : 'None') },
                    { head: 'Organization', cell: (event) => (event.org_id ? names.org(event.org_id) : '–') },
                  ]} />} />
                <Timeline rows={shown} />
                {rows.length > room && <button type="button" class="button" onClick={() => setRoom(room + step)}>Show {step} more</button>}
              </>
            )
          }}
        </Answered>
      )}
    </Page>
  )
}

function Facts({ row }: { row: ActorRow }) {
  const names = useNames()
  return (
    <dl class="tiles">
        <div class="tile"><dt>Events</dt><dd>{count(row.events)}</dd></div>
        <div class="tile"><dt>Active days</dt><dd>{count(row.active_days)}</dd></div>
        <div class="tile"><dt>First seen</dt><dd class="small">{date(row.first_seen)}</dd></div>
        <div class="tile"><dt>Last seen</dt><dd class="small">{ago(row.last_seen)}</dd></div>
        <div class="tile"><dt>Surfaces</dt><dd class="small"><SurfaceDots surfaces={row.surfaces} /></dd></div>
        <div class="tile"><dt>Acted for</dt><dd class="small">{row.orgs?.map(names.org).join(', ') || 'nobody'}</dd></div>
    </dl>
  )
}

function Unknown({ id }: { id: string }) {
  return (
    <Empty title="Nobody that you may see">
      <p>No event of {id} is in the organizations that you may read. If they are somebody's, ask an admin of the organization for a role.</p>
    </Empty>
  )
}

function Lanes({ rows, label }: { rows: EventRow[], label: string }) {
  const draw = useCallback((width: number): Plot.PlotOptions => {
    const data = rows.map((row) => ({ at: new Date(row.occurred_at), lane: row.surface ? surfaceName(row.surface) : 'None', row }))
    const lanes = [...new Set(['Dashboard', 'CLI', 'Builder', ...data.map(({ lane }) => lane)])]
    const colors: Record<string, string> = { Dashboard: 'var(--dashboard)', CLI: 'var(--cli)', Builder: 'var(--builder)' }
    return {
      height: 40 + 44 * lanes.length,
      marginLeft: 76,
      x: { ...timeAxis, inset: 8 },
      y: { domain: lanes, label: null, tickSize: 0, padding: 0.4 },
      marks: [
        Plot.axisX({ ...timeAxis, ticks: Math.max(2, Math.floor(width / 140)) }),
        Plot.axisY({ label: null, tickSize: 0 }),
        Plot.ruleY(lanes, { stroke: 'var(--line)' }),
        Plot.dot(data, { x: 'at', y: 'lane', r: 4, fill: (d: { lane: string }) => colors[d.lane] ?? 'var(--other)', fillOpacity: 0.55 }),
        Plot.tip(data, Plot.pointer({ x: 'at', y: 'lane', title: (d: { row: EventRow }) => `${d.row.event}\n${dateAndTime(d.row.occurred_at)}` })),
      ],
    }
  }, [rows])
  return <Plotted label={label} draw={draw} />
}
