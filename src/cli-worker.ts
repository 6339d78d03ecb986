import { Command } from 'commander'
import { duration, examples, wholeNumber, withCommon, type Cli, type CommonOptions } from './cli-options.ts'

type Options = CommonOptions & {
  sink?: string[]
  jobs: boolean
  batch?: number
  concurrency?: number
  lease?: number
  grace: number
  port?: number
  prepare: boolean
  pretty?: boolean
  verbose?: boolean
}

/** `actorscope worker`: delivers to the sinks, and does what is due. */
export function workerCommand(cli: Cli): Command {
  const command = new Command('worker')
    .description('deliver events to the sinks, and keep partitions and builds in order, until Ctrl-C')
    .option('--sink <name>', 'deliver to this sink only; may be repeated', another)
    .option('--no-jobs', 'only deliver: make no partitions, reconcile no builds')
    .option('--batch <events>', 'events a batch, at most (default: 500)', wholeNumber(1, 10_000))
    .option('--concurrency <batches>', 'batches of one sink at once, at most, where it has shards (default: 4)',
      wholeNumber(1, 64))
    .option('--lease <time>', 'how long a batch is waited for when its worker gives no sign of life (default: 30s)',
      duration)
    .option('--grace <time>', 'how long a batch may take when it is time to end', duration, 8000)
    .option('--port <port>', 'serve /healthz and /metrics on this port of 127.0.0.1', wholeNumber(0, 65535))
    .option('--no-prepare', 'without prepared statements: through a pooler in transaction mode')
    .option('--pretty', 'lines for people, instead of JSON')
    .option('--verbose', 'tell of every batch')
    .addHelpText('after', examples(`
actorscope worker --pretty
DATABASE_URL=postgres://… POSTHOG_API_KEY=phc_… actorscope worker --port 9464
DATABASE_URL=postgres://…:6543/postgres actorscope worker --no-prepare`) + `
Tells on stderr what it does, a line of JSON each. Any number of workers may run: they share the work. Secrets of
sinks come from the environment, or from Supabase's Vault: ACTORSCOPE_SINK_<SINK>_<SECRET>, or the vendor's usual
name. With BUILDER_URL and BUILDER_API_KEY it asks the builder about builds that have gone quiet.

Exit codes:
  0 ended by a signal   1 it could not begin   2 the flags make no sense
`)
  return withCommon(command).action((options: Options) => work(cli, options))
}

const another = (name: string, before: string[] = []) => [...before, name]

async function work(cli: Cli, options: Options): Promise<void> {
  const { terminal, environment, interrupted } = cli
  const [{ runWorker }, { createLog }, { readDatabaseUrl }] = await Promise.all([
    import('./worker.ts'), import('./log.ts'), import('./cli-settings.ts')])
  const known = await refuseUnusable(cli)
  const { sink, jobs, batch, concurrency, lease, grace, port, prepare, pretty, verbose, json } = options
  const log = createLog({ write: (line) => terminal.say(line), pretty: pretty && !json, verbose })
  for (const name of sink ?? []) if (known && !known.includes(name)) log('warn', 'there is no such sink yet', { sink: name })
  // A full disk, or nobody who reads: that is the trouble of the sink that prints, and of no other.
  process.stdout.removeAllListeners('error').on('error', () => {})
  await runWorker({
    databaseUrl: readDatabaseUrl({}, environment), environment, closing: interrupted, graceSeconds: grace / 1000,
    leaseSeconds: lease && Math.ceil(lease / 1000), port, prepare, sinks: sink, jobs, concurrency, batchSize: batch,
    log,
  })
}

/**
 * A database that is away is waited for; no waiting helps against a wrong password, or where the chapters are missing.
 *
 * @returns the names of the sinks, where the database is there.
 */
async function refuseUnusable(cli: Cli): Promise<string[] | undefined> {
  const [{ withDatabase }, { isLostConnection }] = await Promise.all([import('./cli-database.ts'), import('./lease.ts')])
  return withDatabase(cli, {}, async (sql) => (await sql<{ name: string }[]>`select name from tracking.sinks`).map(({ name }) => name))
    .catch((error: Error) => {
      if (!isLostConnection(error) && !isLostConnection(error.cause) && !cli.interrupted.aborted) throw error
      return undefined
    })
}
