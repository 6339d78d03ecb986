import { spawn } from 'node:child_process'
import { fstatSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { openReader } from './cli-api.ts'
import { duration, examples, timeFromNow, withApi, type ApiOptions, type Cli } from './cli-options.ts'
import type { EventRow } from './tail.ts'
import { jsonLine, visible, type Terminal } from './terminal.ts'

type Options = ApiOptions & { org?: string, app?: string, event?: string, actor?: string, since?: Date, every: number }

/** `actorscope tail`: shows events as they are committed. */
export function tailCommand(cli: Cli): Command {
  const command = new Command('tail')
    .description('watch events come in, until Ctrl-C')
    .option('--org <id>', 'those of an organization')
    .option('--app <id>', 'those of an app')
    .option('--event <name>', 'those of that name; * stands for any characters, ? for one')
    .option('--actor <id>', 'those of a person')
    .option('--since <time>', 'begin with what happened since then: 10m, 2h, or ISO 8601', timeFromNow(-1))
    .addOption(new Option('--every <time>', 'how often to look').argParser(pause).default(1000, '1s'))
    .addHelpText('after', examples(`
actorscope tail
actorscope tail --app com.acme.app --event 'Build *' --since 10m
actorscope tail --json | jq -r 'select(.tags.format == "csv") | .actor_id'`) + `
Shows what the caller may read, in the order of the commits: time, event, app or org, actor, tags.
No event is left out, however late it commits. With --json, each line is a row of public.events.

Exit codes:
  0 ended by Ctrl-C, or by who reads the output   1 refused   2 the flags make no sense
`)
  return withApi(command).action(async (options: Options) => {
    const { terminal, interrupted } = cli
    const api = await openReader(cli, options)
    const { tail } = await import('./tail.ts')
    endWithReader()
    await tail({
      api, interrupted, filter: options, since: options.since, every: options.every,
      show: (event) => terminal.print(options.json ? jsonLine(event) : asLine(event, terminal)),
      trouble: (error) => terminal.say(error ? `trying again: ${visible(error.message)}` : 'The API answers again.'),
    }).catch((error: unknown) => {
      if (!interrupted.aborted) throw error
    })
  })
}

function pause(text: string): number {
  const milliseconds = duration(text)
  if (milliseconds >= 10 && milliseconds <= 86_400_000) return milliseconds
  throw new InvalidArgumentError('It is from 10ms to 1d.')
}

function asLine({ occurred_at, icon, event, app_id, org_id, actor_id, tags }: EventRow, { colors }: Terminal): string {
  const { app_id: _, org_id: __, ...others } = tags
  const details = Object.entries(others).map(([name, value]) =>
    `${colors.dim(visible(`${name}=`))}${visible(typeof value === 'string' ? value : JSON.stringify(value))}`)
  return [
    colors.dim(new Date(occurred_at).toISOString()),
    `${icon ? `${visible(icon)} ` : ''}${colors.bold(visible(event))}`,
    colors.cyan(visible(app_id ?? org_id ?? '–')),
    colors.green(actor_id ?? '–'),
    details.join(' '),
  ].join('  ').trimEnd()
}

// Who writes to a pipe is told that its reader is gone; who waits is not, and Node has no way to ask. GNU tail asks
// the system, and is ended by it then; elsewhere it is the next event that finds out. It dies with this process.
function endWithReader(): void {
  if (process.platform !== 'linux' || !fstatSync(1).isFIFO()) return
  const watch = spawn('tail', [`--pid=${process.pid}`, '-f', '/dev/null'], { stdio: ['ignore', 'inherit', 'ignore'] })
  watch.on('error', () => {}).once('exit', (_, signal) => {
    if (signal === 'SIGPIPE') process.exit()
  })
  watch.unref()
  process.once('exit', () => watch.kill())
}
