import { useState } from 'preact/hooks'
import { Figure, Table } from './figure.tsx'
import { ago, count, date, dateAndTime, many } from './format.ts'
import { Page } from './page.tsx'
import { PersonLink, SurfaceDots } from './person-link.tsx'
import { actors } from './questions.ts'
import { Answered, NoEvents } from './states.tsx'
import { useAnswer, useFilters } from './world.ts'

const step = 50

/** Everybody who was seen, and where. */
export function People() {
  const { org } = useFilters()
  const [room, setRoom] = useState(step)
  const question = actors({ org }, room + 1)
  const answer = useAnswer(question)
  return (
    <Page title="People" lead="Everybody who did something, the last seen first. Choose one to see all that they did.">
      <Answered answer={answer} empty={<NoEvents />}>
        {(rows) => (
          <>
            <Figure title={org ? 'People who acted for the organization' : 'People'} question={question}
              summary={rows.length > room ? `The ${many(room, 'person', 'people')} who were seen last.` : `${many(rows.length, 'person', 'people')} in all.`}
              chart={<Table caption="People" rows={rows.slice(0, room)} columns={[
                { head: 'Person', cell: (row) => <PersonLink id={row.actor_id} /> },
                { head: 'Surfaces', cell: (row) => <SurfaceDots surfaces={row.surfaces} /> },
                { head: 'Events', cell: (row) => count(row.events), isNumber: true },
                { head: 'Active days', cell: (row) => count(row.active_days), isNumber: true },
                { head: 'First seen (UTC)', cell: (row) => date(row.first_seen) },
                { head: 'Last seen', cell: (row) => <time dateTime={row.last_seen} title={`${dateAndTime(row.last_seen)} UTC`}>{ago(row.last_seen)}</time> },
              ]} />} />
            {rows.length > room && <button type="button" class="button" onClick={() => setRoom(room + step)}>Show {step} more</button>}
          </>
        )}
      </Answered>
    </Page>
  )
}
