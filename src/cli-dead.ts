import { Command } from 'commander'
import type { Sql } from 'postgres'
import { examples, uuid, wholeNumber, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import type { Batch, Progress } from './lease.ts'
import type { EventRow, SinkSettings } from './sink.ts'
import { asTable } from './table.ts'
import { jsonLine, visible } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

type Options = CommonOptions & { sink?: string, id?: string[], limit?: number }

/** `actorscope dead`: events that a sink refused for good. */
export function deadCommand(cli: Cli): Command {
  return new Command('dead')
    .description('look after events that a sink refused for good')
    .addHelpText('after', examples(`
actorscope dead list --sink posthog
actorscope dead retry --sink posthog
actorscope dead drop --sink posthog --id 01a1f3a0-4c00-7000-8000-000000000001`))
    .addCommand(listCommand(cli))
    .addCommand(retryCommand(cli))
    .addCommand(dropCommand(cli))
}

/** A dead letter. */
type Letter = {
  sink: string
  scope_id: string
  event_id: string
  event: EventRow
  error: string
  failed_at: Date
  tries: number
}

/** Dead letters of one kind, of one sink, or those of a time before which they failed. */
type Choice = Pick<Options, 'sink' | 'id'> & { failedBefore?: string }

/** Adds what all the commands have, and gives each the database. */
function withLetters(cli: Cli, command: Command, work: (sql: Sql, options: Options) => Promise<void>): Command {
  return withCommon(command)
    .option('--sink <name>', 'those of a sink')
    .option('--id <event_id>', 'this event; may be repeated', (text, before: string[] = []) => [...before, uuid(text)])
    .action(async (options: Options) => {
      const { withDatabase } = await import('./cli-database.ts')
      await withDatabase(cli, {}, async (sql) => {
        if (options.sink !== undefined) await refuseUnknown(sql, options.sink)
        await work(sql, options)
      })
    })
}

async function refuseUnknown(sql: Sql, sink: string): Promise<void> {
  const found = await sql`select from tracking.sinks as s where s.name = ${sink}`
  if (found.length > 0) return
  throw new TrackingError('42704', { details: `There is no sink '${sink}'.`, hint: 'tracking.create_sink makes one.' })
}

/** Finds dead letters of sinks, in the order of the log. */
async function find(sql: Sql, { sink = null, id = null, failedBefore = null }: Nullable<Choice>, limit: number) {
  return sql.begin('read only', async (tx) => {
    await tx`set local timezone = 'UTC'` // as workers get events
    return tx<Letter[]>`
      select u.sink, u.scope_id, u.event_id, u.error, u.failed_at, u.tries,
             row_to_json(jsonb_populate_record(null::public.events, u.event)) as event
      from   tracking.undelivered as u
      where  (${sink}::text is null or u.sink = ${sink}::text)
      and    (${id === null} or u.event_id = any (${id ?? []}::uuid[]))
      and    (${failedBefore}::text is null or u.failed_at < ${failedBefore}::text::timestamptz)
      order  by u.epoch, u.txid, u.event_id
      limit  ${limit}`
  })
}

type Nullable<T> = { [name in keyof T]: T[name] | null }

/** Says what became of dead letters; answers how many there were. */
async function settle(
  sql: Sql, sink: string, outcome: 'delivered' | 'refused' | 'dropped',
  letters: { scope_id: string, event_id: string, error?: string }[],
): Promise<number> {
  const text = JSON.stringify(letters.map(({ scope_id, event_id, error }) => ({ scope_id, event_id, error })))
  const [row] = await sql<{ count: number }[]>`
    select tracking.settle_undelivered(${sink}, ${outcome}, ${text}::text::jsonb) as count`
  return row!.count
}

const page = 500


// list ----------------------------------------------------------------------------------------------

function listCommand(cli: Cli): Command {
  const command = new Command('list')
    .description('show them, in the log\'s order, and lifecycle events of builds that could not be written')
    .option('--limit <n>', 'how many of each (default: 100)', wholeNumber(1, 1_000_000))
  return withLetters(cli, command, async (sql, options) => {
    const { limit = 100 } = options
    const letters: Letter[] = [...await find(sql, options, limit)]
    if (!options.sink && !options.id) letters.push(...await ofBuilds(sql, limit))
    await show(cli, options, letters)
  })
}

async function ofBuilds(sql: Sql, limit: number): Promise<Letter[]> {
  return sql<Letter[]>`
    select '' as sink, d.event ->> 'scope_id' as scope_id, d.id as event_id, d.event, d.error, d.failed_at, d.tries
    from   tracking.dead_letters as d
    order  by d.failed_at
    limit  ${limit}`
}

async function show({ terminal }: Cli, { json }: Options, letters: Letter[]): Promise<void> {
  if (json) {
    for (const { sink, ...letter } of letters) await terminal.print(jsonLine({ sink: sink || null, ...letter }))
    return
  }
  if (letters.length === 0) return terminal.say('There are none.')
  const rows = letters.map(({ sink, event, event_id, error, failed_at, tries }) => [
    `${failed_at.toISOString().slice(0, 19)}Z`, sink || '(builds)', visible(event.event ?? ''), event_id,
    String(tries), visible(error)])
  for (const line of asTable(['failed at', 'sink', 'event', 'id', 'tries', 'why'], rows)) await terminal.print(line)
}


// retry ---------------------------------------------------------------------------------------------

function retryCommand(cli: Cli): Command {
  const command = new Command('retry')
    .description('send them again, now; and write lifecycle events of builds again')
    .addHelpText('after', `
What a sink takes counts as delivered. What it refuses again stays, with what it says now. Secrets of sinks come from
the environment, or from Supabase's Vault, as for actorscope worker.

Exit codes:
  0 done with all of them   1 a sink is out of order, or refused some again   2 the flags make no sense
`)
  return withLetters(cli, command, async (sql, options) => {
    const sinks = await sql<SinkSettings[]>`
      select s.name as sink, s.kind, s.settings
      from   tracking.sinks as s
      where  exists (select from tracking.undelivered as u where u.sink = s.name)
      and    (${options.sink ?? null}::text is null or s.name = ${options.sink ?? null}::text)
      order  by s.name`
    for (const sink of sinks) await retry(sql, cli, options, sink)
    if (!options.sink && !options.id) await retryBuilds(sql, cli, options)
  })
}

async function retry(sql: Sql, cli: Cli, options: Options, sink: SinkSettings): Promise<void> {
  const [{ endWithin, resend }, { LoggedEvent }, open] = await Promise.all([
    import('./delivery.ts'), import('./sink.ts'), openerOf(sql, cli, sink)])
  const [{ failedBefore } = { failedBefore: '' }] = await sql<{ failedBefore: string }[]>`
    select clock_timestamp()::text as "failedBefore"`
  const tally = { delivered: 0, refused: 0 }
  while (!cli.interrupted.aborted) {
    const letters = await find(sql, { ...options, sink: sink.sink, failedBefore }, page)
    if (letters.length === 0) break
    const events = letters.map(({ event }) => new LoggedEvent(Buffer.from(JSON.stringify(event))))
    const batch: Batch = { ...sink, shard: 0, lease: '', failures: 0, more: false, events }
    const { progress, error } = await resend(batch, open, endWithin(10, cli.interrupted))
    const { delivered, refused } = partsOf(progress)
    tally.delivered += await settle(sql, sink.sink, 'delivered', delivered)
    tally.refused += await settle(sql, sink.sink, 'refused', refused)
    if (error) throw outOfOrder(sink, error)
  }
  await tell(cli, options, { sink: sink.sink, ...tally })
  if (tally.refused > 0) process.exitCode = 1
}

function outOfOrder({ sink }: SinkSettings, error: unknown): unknown {
  if (error instanceof TrackingError) return error
  return new TrackingError('sink_out_of_order', {
    details: `${sink} takes no more: ${(error as Error).message}`,
    hint: 'What it took counts as delivered. See to it, and run the command again.',
    cause: error,
  })
}

async function openerOf(sql: Sql, { environment, terminal }: Cli, sink: SinkSettings) {
  const [{ openSink }, { loadSecrets }] = await Promise.all([import('./sinks.ts'), import('./secrets.ts')])
  const secret = await loadSecrets(sink, environment, sql)
  const log = (message: string) => terminal.say(visible(message))
  return (batch: Batch) => openSink(batch, { secret, fetch: globalThis.fetch, sql, log })
}

function partsOf({ batch, done, undelivered }: Progress) {
  const errors = new Map(undelivered.map(({ place, error }) => [place, error]))
  const sent = batch.events.slice(0, done).map(({ row }, place) => ({ ...row, error: errors.get(place) }))
  return { delivered: sent.filter(({ error }) => !error), refused: sent.filter(({ error }) => error) }
}

async function retryBuilds(sql: Sql, cli: Cli, options: Options): Promise<void> {
  const [{ written, failed } = { written: 0, failed: 0 }] = await sql<{ written: number, failed: number }[]>`
    select written, failed from tracking.retry_dead_letters()`
  if (written + failed > 0) await tell(cli, options, { sink: null, delivered: written, refused: failed })
}

type Result = { sink: string | null, delivered: number, refused: number }

async function tell({ terminal }: Cli, { json }: Options, result: Result): Promise<void> {
  if (json) return terminal.print(jsonLine(result))
  const { sink, delivered, refused } = result
  const [name, done] = sink === null ? ['Builds', 'written'] : [visible(sink), 'delivered']
  terminal.say(`${name}: ${delivered} ${done}${refused > 0 ? `, ${refused} refused again` : ''}.`)
}


// drop ----------------------------------------------------------------------------------------------

function dropCommand(cli: Cli): Command {
  const command = new Command('drop')
    .description('give them up')
    .addHelpText('after', `
They stay in the log, and count as dropped: a replay sends them again.

Exit codes:
  0 they are dropped   1 refused   2 the flags make no sense
`)
  command.hook('preAction', () => {
    const { sink, id } = command.opts<Options>()
    if (!sink && !id) command.error('error: name a --sink, or an event by --id')
  })
  return withLetters(cli, command, async (sql, options) => {
    const dropped = await dropAll(sql, options)
    if (options.json) await cli.terminal.print(jsonLine({ dropped }))
    else cli.terminal.say(`${dropped} dropped.`)
  })
}

async function dropAll(sql: Sql, choice: Choice): Promise<number> {
  let dropped = 0
  for (;;) {
    const letters = await find(sql, choice, page)
    const sink = letters[0]?.sink
    if (sink === undefined) return dropped
    dropped += await settle(sql, sink, 'dropped', letters.filter((letter) => letter.sink === sink))
  }
}
