import { Command, Option } from 'commander'
import { openApi } from './cli-api.ts'
import { duration, examples, isoTime, property, withApi, type ApiOptions, type Cli, type Properties } from './cli-options.ts'
import { jsonLine, visible } from './terminal.ts'
import type { TrackingError } from './tracking-error.ts'

type Options = ApiOptions & {
  app?: string
  org?: string
  tag?: Properties
  context?: Properties
  channel?: string
  icon?: string
  description?: string
  notify?: boolean
  timestamp?: Date
  eventId?: string
  actor?: string
  file?: string
  resume?: string
  rejects?: string
  retryFor: number
}

/** `actorscope track`: one event from flags, or many from JSON lines. */
export function trackCommand(cli: Cli): Command {
  const command = new Command('track')
    .description('record an event, or many from JSON lines')
    .argument('[event]', 'what happened; - reads JSON lines from stdin')
    .option('--app <id>', 'the app it is about')
    .option('--org <id>', 'the organization it is for (default: the one that owns the app)')
    .option('--tag <name=value>', 'a tag; name:=value for JSON; may be given often', property)
    .option('--context <name=value>', 'a property of the event alone, like --tag', property)
    .option('--channel <channel>', 'its family')
    .option('--icon <emoji>', 'an emoji')
    .option('--description <text>', 'a sentence for people')
    .option('--notify', 'have sinks notify people')
    .option('--timestamp <time>', 'when it happened, ISO 8601 (default: now)', isoTime)
    .option('--event-id <id>', 'a UUIDv7, or any text together with --timestamp: sent twice, it is recorded once')
    .option('--actor <id>', 'who did it; for the service role (ACTORSCOPE_SECRET_KEY) alone')
    .option('--file <file>', 'read JSON lines, each a payload of track_event; - is stdin')
    .option('--resume <file>', 'keep how far it got in this file (default: <file>.progress)')
    .option('--rejects <file>', 'write what was dropped to this file, as JSON lines')
    .addOption(new Option('--retry-for <time>', 'how long to try again where the API does not answer')
      .argParser(duration).default(300_000, '5m'))
    .addHelpText('after', examples(`
actorscope track 'Report Exported' --app com.acme.app --tag format=csv --tag rows:=3
actorscope track 'Invoice Paid' --app com.acme.app --event-id inv-17 --timestamp 2026-11-05T09:30:00Z
actorscope track --file events.jsonl --rejects dropped.jsonl
pg_dump … | jq -c … | actorscope track - --resume import.progress`) + `
Prints the id of the event; for JSON lines, how many were recorded, were there already, and were dropped.

JSON lines are recorded once each, also when the same input is given again, or after the command was killed:
a line without an event_id gets one made of its text, its place among equal lines, and its timestamp. Lines that
have no timestamp either get the time the import began, which the progress file keeps. Dropped lines go to
stderr, and to --rejects; an import that dropped some tries those again when it is run again.

Exit codes:
  0 recorded   1 refused, or lines were dropped   2 the flags make no sense   130 interrupted: run it again to go on
`)
  return withApi(command).action((event: string | undefined, options: Options) => track(cli, command, event, options))
}

const eventFlags = [
  'app', 'org', 'tag', 'context', 'channel', 'icon', 'description', 'notify', 'timestamp', 'eventId', 'actor',
] as const
const importFlags = ['resume', 'rejects'] as const

async function track(cli: Cli, command: Command, event: string | undefined, options: Options): Promise<void> {
  const file = options.file ?? (event === '-' ? '-' : undefined)
  if (file === undefined && event === undefined) command.error('error: name the event, or a --file of events')
  if (options.file !== undefined && event !== undefined) command.error('error: name an event or a --file, not both')
  refuse(command, options, file === undefined ? importFlags : eventFlags,
    file === undefined ? 'is for JSON lines' : 'is for a single event: JSON lines have fields of their own')
  if (file === undefined) await trackOne(cli, event ?? '', options)
  else await (await import('./cli-track-file.ts')).importFile(cli, file, options)
}

function refuse(command: Command, options: Options, names: readonly (keyof Options)[], reason: string): void {
  const given = names.find((name) => options[name] !== undefined)
  if (given) command.error(`error: --${given.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`)} ${reason}`)
}

async function trackOne(cli: Cli, event: string, options: Options): Promise<void> {
  const { app, org, tag, context, channel, icon, description, notify, timestamp, eventId, actor } = options
  const { createTracker } = await import('./tracker.ts')
  const api = await openApi(cli, options, actor === undefined ? 'anybody' : 'service')
  await api.accessToken()
  const { url, key, apiKey } = api.access
  const source = { url, publishableKey: key, apiKey, accessToken: () => api.accessToken() }
  const details = { app, org, tags: tag, context, channel, icon, description, notify, timestamp, eventId, actor }
  const { eventId: id, duplicate, warnings } = await createTracker(source).trackNow(event, details)
    .catch((error: TrackingError) => { throw api.forTerminal(error) })
  const { terminal } = cli
  for (const warning of warnings) terminal.say(terminal.talkColors.yellow(`warning: ${visible(warning)}`))
  if (duplicate) terminal.say('It was there already.')
  await terminal.print(options.json ? jsonLine({ event_id: id, duplicate, warnings }) : id)
}
