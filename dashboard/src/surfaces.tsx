import { Figure } from './figure.tsx'
import { count, many, percent } from './format.ts'
import { Page } from './page.tsx'
import { inOrder, surfaceClass, surfaceName } from './person-link.tsx'
import { surfaces, type SurfacesRow } from './questions.ts'
import { Answered, NoEvents } from './states.tsx'
import { useAnswer, useFilters } from './world.ts'

/** Whether the same people use the dashboard, the command line and the builder. */
export function Surfaces() {
  const filters = useFilters()
  const question = surfaces(filters)
  const answer = useAnswer(question)
  return (
    <Page title="Surfaces" lead="Did the same person use the dashboard, the command line and the builder?" filters={['app', 'range']}>
      <Answered answer={answer} empty={<NoEvents />}>
        {(rows) => (rows.every(({ actors, orgs }) => actors + orgs === 0)
          ? <NoEvents />
          : (
            <>
              <Tiles rows={rows} />
              <Figure title="People and organizations on each combination" question={question} chart={<Combinations rows={rows} />}
                summary="Exactly: seen on these surfaces and no others. At least: on all of these, maybe on others too." />
            </>
          ))}
      </Answered>
    </Page>
  )
}

const knownIn = (rows: SurfacesRow[]) => inOrder(rows.flatMap((row) => row.surfaces))

function Tiles({ rows }: { rows: SurfacesRow[] }) {
  const known = knownIn(rows)
  const all = rows.find((row) => row.surfaces.length === known.length)
  const people = rows.reduce((sum, row) => sum + row.actors, 0)
  const several = rows.reduce((sum, row) => sum + (row.surfaces.length > 1 ? row.actors : 0), 0)
  return (
    <dl class="tiles">
      <div class="tile strong">
        <dt>On all {count(known.length)} surfaces</dt>
        <dd>{count(all?.actors ?? 0)} <span>of {many(people, 'person', 'people')}, {percent(people ? (all?.actors ?? 0) / people : 0)}</span></dd>
      </div>
      <div class="tile">
        <dt>On more than one</dt>
        <dd>{count(several)} <span>{percent(people ? several / people : 0)}</span></dd>
      </div>
      {known.map((surface) => {
        const row = rows.find((one) => one.surfaces.length === 1 && one.surfaces[0] === surface)
        return (
          <div class={`tile edge-${surfaceClass(surface)}`} key={surface}>
            <dt>{surfaceName(surface)}</dt>
            <dd>{count(row?.actors_at_least ?? 0)} <span>{many(row?.orgs_at_least ?? 0, 'org')}</span></dd>
          </div>
        )
      })}
    </dl>
  )
}

function Combinations({ rows }: { rows: SurfacesRow[] }) {
  const known = knownIn(rows)
  const most = Math.max(1, ...rows.map(({ actors }) => actors))
  const sorted = rows.toSorted((a, b) => b.actors - a.actors || b.surfaces.length - a.surfaces.length)
  return (
    <div class="scroller" tabIndex={0} role="group" aria-label="Combinations of surfaces">
      <table class="combinations">
        <caption class="visually-hidden">People and organizations on each combination of surfaces</caption>
        <thead>
          <tr>
            {known.map((surface) => <th key={surface} scope="col" class="mark">{surfaceName(surface)}</th>)}
            <th scope="col" class="wide">People, exactly</th>
            <th scope="col" class="number">At least</th>
            <th scope="col" class="number">Orgs, exactly</th>
            <th scope="col" class="number">At least</th>
          </tr>
        </thead>
        <tbody>
          {sorted.map((row) => (
            <tr key={row.surfaces.join()}>
              {known.map((surface) => {
                const isOn = row.surfaces.includes(surface)
                return (
                  <td key={surface} class="mark">
                    <span class={`dot large ${isOn ? surfaceClass(surface) : 'off'}`} aria-hidden="true" />
                    <span class="visually-hidden">{isOn ? 'yes' : 'no'}</span>
                  </td>
                )
              })}
              <td><span class="long-bar" style={{ '--share': row.actors / most }}><span>{count(row.actors)}</span></span></td>
              <td class="number">{count(row.actors_at_least)}</td>
              <td class="number">{count(row.orgs)}</td>
              <td class="number">{count(row.orgs_at_least)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
