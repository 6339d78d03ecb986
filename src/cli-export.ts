import { Command, InvalidArgumentError } from 'commander'
import { examples, uuid, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import { barOf } from './progress-bar.ts'
import { jsonLine, type Terminal } from './terminal.ts'

type Options = CommonOptions & { to: string }

/** `actorscope export`: writes what is held to files. */
export function exportCommand(cli: Cli): Command {
  return new Command('export')
    .description('write a month of the log, or all that is held about a person, to a file')
    .addHelpText('after', examples(`
actorscope export month 2025-10 --to events-2025-10.parquet
actorscope export actor 10000000-0000-4000-8000-000000000001 --to ada.ndjson`))
    .addCommand(monthCommand(cli))
    .addCommand(actorCommand(cli))
}

const promise = `
The file has its name when it is whole, has as many rows as there are, and is on the disk; until then it ends in
.part. A file that is there is not written over. Speaks to Postgres itself (DATABASE_URL; without one, the local
stack's).

Exit codes:
  0 it is there   1 refused or failed   2 the flags make no sense   130 interrupted, and nothing is there
`

function monthCommand(cli: Cli): Command {
  const command = new Command('month')
    .description('write the events of a month, and note that it was exported')
    .argument('<month>', 'the month, in UTC, such as 2025-10', aMonth)
    .requiredOption('--to <file>', 'a file that ends in .parquet or .ndjson', aFile(['.parquet', '.ndjson']))
    .addHelpText('after', examples(`
actorscope export month 2025-10 --to events-2025-10.parquet
duckdb -c "select channel, count(*) from 'events-2025-10.parquet' group by 1"`) + `
Parquet has the log's columns: times in microseconds, UUIDs, and JSON as text. NDJSON has a row a line. Where
tracking.retention says export_first, a month goes after this.
${promise}`)
  return withCommon(command).action(async (month: string, options: Options) => {
    const { exportMonth } = await import('./export.ts')
    const events = await write(cli, options, (how) => exportMonth(month, how))
    await tell(cli, options, { month, file: options.to, events }, `${amount(events)} events of ${month}`)
  })
}

function actorCommand(cli: Cli): Command {
  const command = new Command('actor')
    .description('write all that is held about a person')
    .argument('<id>', 'whom', uuid)
    .requiredOption('--to <file>', 'a file that ends in .ndjson', aFile(['.ndjson']))
    .addHelpText('after', examples(`
actorscope export actor 10000000-0000-4000-8000-000000000001 --to ada.ndjson
jq -r .kind ada.ndjson | sort | uniq -c`) + `
A line for each row, {"kind": "event", "data": {…}}: events, those that a sink refused, builds, roles, API keys
without what would let anybody in, and mails turned off.
${promise}`)
  return withCommon(command).action(async (actor: string, options: Options) => {
    const { exportActor } = await import('./export.ts')
    const rows = await write(cli, options, (how) => exportActor(actor, how))
    await tell(cli, options, { actor, file: options.to, rows }, `${amount(rows)} rows`)
  })
}

function aMonth(text: string): string {
  if (/^\d{4}-(0[1-9]|1[0-2])$/.test(text)) return text
  throw new InvalidArgumentError('It is a year and a month, such as 2025-10.')
}

function aFile(endings: string[]): (text: string) => string {
  return (text) => {
    if (endings.some((ending) => text.endsWith(ending))) return text
    throw new InvalidArgumentError(`It is a file that ends in ${endings.join(' or ')}.`)
  }
}

type How = import('./export.ts').Export

async function write(cli: Cli, { to }: Options, work: (how: How) => Promise<number>): Promise<number> {
  const { terminal, interrupted } = cli
  const { withDatabase } = await import('./cli-database.ts')
  try {
    return await withDatabase(cli, {}, (sql) => work({ sql, file: to, interrupted, progress: barIn(terminal) }))
  } finally {
    terminal.showBar('')
  }
}

const redrawMs = 100

/** Shows how far it is, ten times a second at most. */
function barIn(terminal: Terminal): How['progress'] {
  let drawnAt = 0
  return (done, total) => {
    if (!terminal.hasBar || Date.now() - drawnAt < redrawMs) return
    drawnAt = Date.now()
    terminal.showBar(total ? barOf(done / total, `${amount(done)} of ${amount(total)} events`, terminal.width)
      : `${amount(done)} rows`)
  }
}

async function tell({ terminal }: Cli, { json, to }: Options, facts: object, what: string): Promise<void> {
  if (json) await terminal.print(jsonLine(facts))
  else terminal.say(`${to} has ${what}.`)
}

const amount = (count: number): string => count.toLocaleString('en')
