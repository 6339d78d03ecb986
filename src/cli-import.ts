import { setTimeout as sleep } from 'node:timers/promises'
import { Command, Option } from 'commander'
import type { Sql } from 'postgres'
import { examples, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import type { Counts, HistoryState, Outcome } from './history.ts'
import type { RowOptions } from './history-rows.ts'
import type { Rejects } from './import-files.ts'
import { jsonLine, visible } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

type Options = CommonOptions & RowOptions & {
  unknownAs: 'actor' | 'org' | 'skip'
  toSinks?: boolean
  rejects?: string
  resume?: string
  dryRun?: boolean
}

/** `actorscope import`: old data in. */
export function importCommand(cli: Cli): Command {
  const command = new Command('import')
    .description('take in old events, whose user_id is a person or an organization')
    .argument('<file>', 'JSON lines or CSV, gzip or not: payloads of version 1, or PostHog\'s export; - is stdin')
    .addOption(new Option('--from <origin>', 'whose export it is (default: PostHog\'s, where rows have a distinct_id)')
      .choices(['v1', 'posthog']))
    .addOption(new Option('--format <format>', 'how it is written (default: as it looks)').choices(['jsonl', 'csv']))
    .option('--group-type <type>', 'the type of PostHog\'s groups that stands for organizations', 'organization')
    .addOption(new Option('--unknown-as <kind>', 'what a UUID is that nobody knows').choices(['actor', 'org', 'skip']).default('skip'))
    .option('--to-sinks', 'let sinks deliver what is imported')
    .option('--rejects <file>', 'write what was not recorded to this file, as JSON lines')
    .option('--resume <file>', 'keep how far it got in this file (default: <file>.import)')
    .option('--dry-run', 'say what would become of it, and change nothing')
    .addHelpText('after', examples(`
actorscope import events.jsonl --dry-run --rejects undecided.jsonl
actorscope import events.jsonl --rejects undecided.jsonl
actorscope import posthog-export.jsonl.gz --from posthog --group-type company
psql … -c "copy (select …) to stdout csv header" | actorscope import - --resume events.import`) + `
The database says for each id whether it is a person or an organization (tracking.person_known_as, org.known_as);
actor and org are recorded apart, as the service role's. A row whose id is neither, or both, is undecided: it is told,
and written to --rejects. Each row is recorded once, also when the same file is given again, from another machine, or
after the command was killed. Speaks to Postgres itself (DATABASE_URL; without one, the local stack's).

Sinks would deliver what is imported as what it is, events received now that happened long ago. So it is refused while
there is a sink that takes events however old, unless --to-sinks says that it shall.

Exit codes:
  0 all is recorded   1 refused, or some rows were not recorded   2 the flags make no sense
  130 interrupted: run it again to go on
`)
  return withCommon(command).action((file: string, options: Options) => importOld(cli, file, options))
}

async function importOld(cli: Cli, file: string, options: Options): Promise<void> {
  const { openInput, refuseSameFiles, Rejects } = await import('./import-files.ts')
  const { withDatabase } = await import('./cli-database.ts')
  const { input, bytes, bytesRead } = await openInput(file)
  try {
    const resume = options.dryRun ? undefined : options.resume ?? (bytes === undefined ? undefined : `${file}.import`)
    await refuseSameFiles(file, options.rejects, resume)
    const state = await begin(resume)
    const linesBefore = state.lines
    await withDatabase(cli, {}, async (sql) => {
      await refuseSinks(sql, cli, options)
      const rejects = options.rejects === undefined ? undefined : await Rejects.open(options.rejects, state)
      await run(cli, sql, { input, bytes, bytesRead, resume, state, rejects, options }).finally(() => rejects?.close())
    }, 2)
    if (linesBefore === state.lines) cli.terminal.say('There is nothing new in it.')
    await report(cli, state, options)
    if (state.dropped > 0) process.exitCode = 1
  } finally {
    input.destroy()
  }
}

type Run = {
  input: AsyncIterable<Buffer>
  bytes: number | undefined
  bytesRead(): number
  resume: string | undefined
  state: HistoryState
  rejects: Rejects | undefined
  options: Options
}

async function run({ terminal, interrupted }: Cli, sql: Sql, work: Run): Promise<void> {
  const { importHistory } = await import('./history.ts')
  const { rowsOf } = await import('./history-rows.ts')
  const { asLine } = await import('./import-files.ts')
  const { writeImport } = await import('./import-state.ts')
  const { ProgressBar } = await import('./progress-bar.ts')
  const { input, bytes, bytesRead, resume, state, rejects, options } = work
  const { yellow, red } = terminal.talkColors
  const bar = new ProgressBar(terminal, bytes)
  const told: Counts = {}
  try {
    await importHistory({
      rows: rowsOf(input, options), state, interrupted,
      record: (payloads) => record(sql, payloads, options),
      makeMonths: async (days) => {
        if (!options.dryRun) await makePartitions(sql, days, interrupted)
      },
      reject: async (dropped) => {
        for (const reject of dropped) {
          told[reject.code] = (told[reject.code] ?? 0) + 1
          if (told[reject.code]! <= TOLD_OF_A_KIND) terminal.say(red(asLine(reject)))
        }
        if (rejects) state.rejectsBytes = await rejects.add(dropped)
      },
      warn: (line, warning) => terminal.say(yellow(`line ${line}: warning: ${visible(warning)}`)),
      save: async (kept) => {
        if (resume !== undefined) await writeImport(resume, kept)
      },
      progress: () => bar.show(bytesRead(), state),
    })
    if (!options.dryRun) await makePartitions(sql, [], interrupted) // for events that a time zone puts in another month
  } catch (error) {
    bar.hide()
    if (resume !== undefined && state.lines > 0) {
      terminal.say(`Stopped after line ${amount(state.lines)}: the same command goes on from there.`)
    }
    throw error
  }
  bar.hide()
}

/** So many rows with the same fault are told one by one. */
const TOLD_OF_A_KIND = 10

/** Takes an import up where it stopped. One that came to its end, and left rows out, begins again: to try those. */
async function begin(resume: string | undefined): Promise<HistoryState> {
  const { newImport, readImport } = await import('./import-state.ts')
  const fresh = { ...newImport(new Date()), undecided: {}, refused: {}, passedOver: {} }
  const before = resume === undefined ? undefined : await readImport(resume) as HistoryState | undefined
  if (before && !before.undecided) throw new TrackingError('resume_unreadable', {
    details: `${resume} cannot be used: it is the progress of actorscope track.`, hint: 'Name another with --resume.' })
  return !before || (before.finished && before.dropped > 0) ? fresh : before
}


// The database --------------------------------------------------------------------------------------

// What is imported is received now, so that sinks that have long begun would deliver years of it.
async function refuseSinks(sql: Sql, { terminal }: Cli, { toSinks, dryRun }: Options): Promise<void> {
  if (toSinks) return
  const [found] = await sql<{ names: string | null, first: string }[]>`
    select string_agg(name, ', ' order by name) as names, min(name) as first from tracking.sinks where max_age is null`
  if (!found?.names) return
  const details = `All that is imported would be delivered to ${found.names}.`
  if (dryRun) return terminal.say(terminal.talkColors.yellow(`warning: ${details}`))
  throw new TrackingError('sinks_would_deliver', {
    details,
    hint: `Have it delivered with --to-sinks, or keep history out of a sink: update tracking.sinks set max_age = '2 days' where name = '${found.first}';`,
  })
}

/** track_events has the same limit. */
const EVENTS_A_CALL = 1000

class DryRun extends Error {}

async function record(sql: Sql, payloads: string[], { unknownAs, dryRun }: Options): Promise<Outcome[]> {
  const calls: string[] = []
  for (let at = 0; at < payloads.length; at += EVENTS_A_CALL) calls.push(`[${payloads.slice(at, at + EVENTS_A_CALL).join(',')}]`)
  let outcomes: Outcome[] = []
  await sql.begin(async (transaction) => {
    const answers = await Promise.all(calls.map((call) => transaction.unsafe<{ results: Outcome[] }[]>(
      `select tracking.record_events($1::text::jsonb, $2) -> 'results' as results`, [call, unknownAs])))
    outcomes = answers.flatMap(([answer]) => answer!.results)
    if (dryRun) throw new DryRun()
  }).catch((error: unknown) => {
    if (!(error instanceof DryRun)) throw error
  })
  return outcomes
}

const GIVEN_WAY = '55P03'
const patienceMs = 60_000

/** Makes the log's partitions for months; where somebody is in the way, for a while again and again. */
async function makePartitions(sql: Sql, days: string[], interrupted: AbortSignal): Promise<void> {
  for (const since = Date.now(); ;) {
    try {
      await sql`select tracking.make_partitions(days => ${`{${days.join(',')}}`}::text::date[])`
      return
    } catch (error) {
      if ((error as { code?: string }).code !== GIVEN_WAY || Date.now() - since > patienceMs) throw error
      await sleep(500, undefined, { signal: interrupted })
    }
  }
}


// What became of it ---------------------------------------------------------------------------------

async function report({ terminal }: Cli, state: HistoryState, { json, dryRun }: Options): Promise<void> {
  const { recorded, duplicates, undecided, refused, passedOver } = state
  if (json) {
    return terminal.print(jsonLine({
      recorded, duplicates, undecided, dropped: refused, passed_over: passedOver, dry_run: dryRun ?? false }))
  }
  await terminal.print([
    `${amount(recorded)} ${dryRun ? 'would be recorded' : 'recorded'}`, `${amount(duplicates)} there already`,
    `${amount(sum(undecided))} undecided`, `${amount(sum(refused))} dropped`, `${amount(sum(passedOver))} passed over`].join(', '))
  for (const [name, counts] of Object.entries({ undecided, 'dropped': refused, 'passed over': passedOver })) {
    const kinds = Object.entries(counts).sort(([, a], [, b]) => b - a)
    if (kinds.length > 0) await terminal.print(`${name}: ${kinds.map(([kind, of]) => `${amount(of)} ${visible(kind)}`).join(', ')}`)
  }
}

const sum = (counts: Counts): number => Object.values(counts).reduce((all, one) => all + one, 0)

const amount = (number: number): string => number.toLocaleString('en')
