import { setTimeout as sleep } from 'node:timers/promises'
import { Command, Option } from 'commander'
import { openApi } from './cli-api.ts'
import { duration, examples, withApi, type ApiOptions, type Cli } from './cli-options.ts'
import type { DataApi } from './data-api.ts'
import { jsonLine, visible } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

/** `actorscope build`: asks for builds, and how they are. */
export function buildCommand(cli: Cli): Command {
  return new Command('build')
    .description('ask for a build, or how one is')
    .addHelpText('after', examples(`
actorscope build request com.acme.app --platform ios
actorscope build status 7d0a… --watch && ./publish.sh`))
    .addCommand(requestCommand(cli))
    .addCommand(statusCommand(cli))
}

type Build = { id: string, status: string, last_error: string | null } & Record<string, unknown>
type RequestOptions = ApiOptions & { platform: string, mode: string, watch?: boolean, every: number }
type StatusOptions = ApiOptions & { watch?: boolean, every: number }

const exitCodes = `
Exit codes:
  0 it succeeded, or has not ended   1 it ended otherwise, or the command was refused   2 the flags make no sense
`

function everyOption(): Option {
  return new Option('--every <time>', 'how often to look, with --watch').argParser(duration).default(2000, '2s')
}

function requestCommand(cli: Cli): Command {
  const command = new Command('request')
    .description('ask for a build; prints its id')
    .argument('<app>', 'the app, such as com.acme.app')
    .addOption(new Option('--platform <platform>', 'what for').choices(['ios', 'android']).makeOptionMandatory())
    .option('--mode <mode>', 'such as release or debug', 'release')
    .option('--watch', 'wait until it has ended, like build status --watch')
    .addOption(everyOption())
    .addHelpText('after', examples(`
actorscope build request com.acme.app --platform ios
actorscope build request com.acme.app --platform android --mode debug --watch`) + exitCodes)
  return withApi(command).action(async (app: string, options: RequestOptions) => {
    const api = await openApi(cli, options)
    const { platform, mode } = options
    const build = await api.rpc<Build>('request_build', { app_id: app, platform, build_mode: mode })
    await cli.terminal.print(options.json ? jsonLine(build) : build.id)
    if (options.watch) await follow(cli, api, build.id, options, build)
  })
}

function statusCommand(cli: Cli): Command {
  const command = new Command('status')
    .description('print how a build is')
    .argument('<id>', 'the id that build request printed')
    .option('--watch', 'print each change, until it has ended')
    .addOption(everyOption())
    .addHelpText('after', examples(`
actorscope build status 0b1a6d0c-3a52-4c0e-9a43-6f0f3a1f6f11
actorscope build status 0b1a6d0c-3a52-4c0e-9a43-6f0f3a1f6f11 --watch && ./publish.sh`) + exitCodes)
  return withApi(command).action(async (id: string, options: StatusOptions) => {
    await follow(cli, await openApi(cli, options), id, options)
  })
}

const underWay = ['pending', 'running']

/** Prints a build's status, and with `watch` each one that follows, until it has ended; the exit code says how. */
async function follow(cli: Cli, api: DataApi, id: string, options: StatusOptions, known?: Build): Promise<void> {
  let before = known?.status
  for (;;) {
    const build = await read(api, id)
    if (build.status !== before) await cli.terminal.print(options.json ? jsonLine(build) : statusLine(build, cli))
    before = build.status
    const isUnderWay = underWay.includes(build.status)
    if (!isUnderWay && build.status !== 'succeeded') process.exitCode = 1
    if (!isUnderWay || !options.watch) return
    await sleep(options.every, undefined, { signal: cli.interrupted })
  }
}

async function read(api: DataApi, id: string): Promise<Build> {
  const [build] = await api.select<Build>('build_requests', { select: '*', id: `eq.${id}` })
  if (build) return build
  throw new TrackingError('not_found', {
    details: `There is no build ${id}, or you may not see it.`, hint: 'The id is what build request printed.' })
}

function statusLine({ status, last_error }: Build, { terminal: { colors } }: Cli): string {
  const color = status === 'succeeded' ? colors.green : underWay.includes(status) ? colors.cyan : colors.red
  return last_error ? `${color(status)}  ${visible(last_error)}` : color(status)
}
