import { Status } from './builds.tsx'
import { Figure, Table } from './figure.tsx'
import { dateAndTime, duration, shortId, timeOfDay } from './format.ts'
import { Page } from './page.tsx'
import { PersonLink, useNames } from './person-link.tsx'
import { build, eventsOfBuild, type BuildRow } from './questions.ts'
import { Answered, Copyable, Empty, NoEvents } from './states.tsx'
import { Timeline } from './timeline.tsx'
import { useAnswer } from './world.ts'

/** One build: what became of it, how long each step took, and its events. */
export function Build({ id }: { id: string }) {
  const question = build(id)
  const answer = useAnswer(question)
  const [row] = answer.rows ?? []
  const events = useAnswer(row && eventsOfBuild(row))
  return (
    <Page title={`Build ${shortId(id)}`} lead={<>What became of it, how long each step took, and its events. <Copyable text={id} isInline /></>}>
      <Answered answer={answer} empty={<Empty title="No build that you may see"><p>No build {id} is in the apps that you may read. If it is somebody's, ask an admin of the organization for a role.</p></Empty>}>
        {([found]) => found && <Facts row={found} />}
      </Answered>
      {row && <Figure title="Steps" summary={summaryOf(row)} question={question} chart={<Steps row={row} />} table={<StepTable row={row} />} />}
      {row && <Answered answer={events} empty={<NoEvents />}>{(rows) => <Timeline rows={rows} />}</Answered>}
    </Page>
  )
}

function Facts({ row }: { row: BuildRow }) {
  const names = useNames()
  return (
    <dl class="tiles">
        <div class="tile"><dt>Status</dt><dd class="small"><Status status={row.status} />{row.failure_category && <span> {row.failure_category.replace('_', ' ')}</span>}</dd></div>
        <div class="tile"><dt>App</dt><dd class="small">{names.app(row.app_id)}, for {names.org(row.org_id)}</dd></div>
        <div class="tile"><dt>Platform</dt><dd class="small">{row.platform}, {row.build_mode}</dd></div>
        <div class="tile"><dt>Asked for by</dt><dd class="small"><PersonLink id={row.actor_id} /></dd></div>
        <div class="tile"><dt>Requested</dt><dd class="small">{dateAndTime(row.requested_at)}</dd></div>
    </dl>
  )
}

function summaryOf(row: BuildRow): string {
  const waited = row.queue_seconds === null ? 'It has not run' : `Waited for ${duration(row.queue_seconds)}`
  const ran = row.run_seconds === null ? '' : `, then ran for ${duration(row.run_seconds)}`
  return `${waited}${ran}${row.finished_at ? `; ended as ${row.status.replace('_', ' ')}` : '; has not ended'}.`
}

/** Waiting and running, in proportion. */
function Steps({ row }: { row: BuildRow }) {
  const { queue_seconds: waited, run_seconds: ran } = row
  return (
    <div class="spans" aria-hidden="true">
      {waited !== null && <div class="span waited" style={{ flexGrow: Math.max(waited, 1) }}><span>waited {duration(waited)}</span></div>}
      {ran !== null && <div class={`span ran ${row.status === 'succeeded' ? 'good' : 'bad'}`} style={{ flexGrow: Math.max(ran, 1) }}><span>ran {duration(ran)}</span></div>}
    </div>
  )
}

function StepTable({ row }: { row: BuildRow }) {
  const steps = { Requested: row.requested_at, 'Handed to a builder': row.queued_at, Started: row.started_at, Ended: row.finished_at }
  return (
    <Table caption="Steps of the build" rows={Object.entries(steps)} columns={[
      { head: 'Step', cell: ([name]) => name },
      { head: 'Time (UTC)', cell: ([, time]) => (time ? `${dateAndTime(time).split(',')[0]}, ${timeOfDay(time)}` : '–') },
    ]} />
  )
}
