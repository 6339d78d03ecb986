// A small program of commander's, for tests/commander.test.ts. What it is to do comes as JSON in COMMAND_PROGRAM.
import { Command, InvalidArgumentError, Option } from 'commander'
import { trackCommand } from '../src/commander.ts'
import { commandEvents } from '../src/events.ts'
import { fileQueue } from '../src/file-queue.ts'
import { createTracker } from '../src/tracker.ts'

/** How the program is set up. */
export type Setup = {
  url: string
  publishableKey: string
  apiKey: string
  /** How it is run; parseAsync. */
  run?: 'parse' | 'parseAsync' | 'parseAsync, then exit'
  /** Whether errors of commander's are thrown. */
  exitOverride?: boolean
  /** Whether it is tracked at all. */
  untracked?: boolean
  /** Whether it is tracked without a catalog. */
  uncatalogued?: boolean
  exitTimeout?: number
  /** A folder for events that were not delivered. */
  queue?: string
  /** What it does about SIGINT; nothing. */
  onInterrupt?: 'exit' | 'go on'
}

const setup = JSON.parse(process.env.COMMAND_PROGRAM!) as Setup
const secret = `Cannot open /home/ada/secret-app/AuthKey_9F3X.p8 of ada@acme.test with Bearer hunter2`

const program = new Command('shop')
  .version('1.2.3')
  .option('--capacitor-config <path>', 'where the app is described')
  .option('--no-color', 'no colours')
if (setup.exitOverride) program.exitOverride()

const app = program.command('app').description('apps')
app.command('list').alias('ls').argument('[filter]')
  .option('-a, --apikey <key>', 'an API key')
  .option('--dry-run', 'change nothing')
  .option('--page <number>', 'which page', '1')
  .option('--token <token>', 'never used by default')
  .addOption(new Option('--region <region>', 'where').env('SHOP_REGION').choices(['eu', 'us']))
  .option('--limit <number>', 'how many', (value) => {
    if (Number.isNaN(Number(value))) throw new InvalidArgumentError('Not a number.')
    return Number(value)
  })
  .option('-q', 'quiet')
  .action(() => console.log('listed'))
app.command('set').argument('<id>').option('--app <id>', 'the app').action(() => console.log('set'))

program.command('throw').action(() => { throw Object.assign(new Error(secret), { status: 413 }) })
program.command('reject').action(async () => {
  await new Promise((resolve) => setTimeout(resolve, 10))
  throw new TypeError('fetch failed', { cause: Object.assign(new Error(secret), { code: 'ECONNREFUSED' }) })
})
program.command('exit').argument('<code>').action((code: string) => {
  console.log('leaving')
  process.exit(Number(code))
})
program.command('exit-later').argument('<code>').action(async (code: string) => {
  await new Promise((resolve) => setTimeout(resolve, 300))
  console.log('leaving')
  process.exit(Number(code))
})
program.command('exit-code').action(() => { process.exitCode = 4 })
program.command('say').action((_, command: Command) => command.error(`error: ${secret}`, { exitCode: 9 }))
program.command('wait').action(() => new Promise((resolve) => {
  const waiting = setInterval(() => {}, 1000)
  if (setup.onInterrupt === 'exit') process.on('SIGINT', () => process.exit(7))
  if (setup.onInterrupt === 'go on') process.on('SIGINT', () => resolve(clearInterval(waiting)))
  console.log('waiting')
}))
program.command('nest').action(async () => {
  await program.parseAsync(['app', 'list'], { from: 'user' })
  await program.parseAsync(['throw'], { from: 'user' }).catch(() => {})
  await program.parseAsync(['nothing-like-it'], { from: 'user' }).catch(() => {})
})
program.command('default', { hidden: true, isDefault: process.env.SHOP_DEFAULT === '1' }).action(() => console.log('default'))

if (!setup.untracked) {
  const { url, publishableKey, apiKey, queue } = setup
  const tracker = createTracker({ url, publishableKey, apiKey }, {
    catalog: setup.uncatalogued ? undefined : commandEvents,
    queue: queue === undefined ? undefined : fileQueue(queue),
  })
  trackCommand(program, tracker, { app: (command) => command.getOptionValue('app') as string, exitTimeout: setup.exitTimeout })
}

if (setup.run === 'parse') program.parse()
else if (setup.run === 'parseAsync, then exit') void program.parseAsync().then(() => process.exit(), () => process.exit(1))
else await program.parseAsync()
