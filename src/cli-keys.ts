import { Command } from 'commander'
import { openApi } from './cli-api.ts'
import { examples, timeFromNow, withApi, type ApiOptions, type Cli } from './cli-options.ts'
import { asTable } from './table.ts'
import { jsonLine, visible } from './terminal.ts'

/** `actorscope keys`: makes, lists and revokes API keys. */
export function keysCommand(cli: Cli): Command {
  return new Command('keys')
    .description('make, list and revoke API keys')
    .addHelpText('after', examples(`
actorscope keys create CI --role developer --app com.acme.app --expires 90d
actorscope keys list
actorscope keys revoke 20000000-0000-4000-8000-000000000001`))
    .addCommand(createCommand(cli))
    .addCommand(listCommand(cli))
    .addCommand(revokeCommand(cli))
}

type CreateOptions = ApiOptions & { role: string, org?: string, app?: string, expires?: Date }
type Created = { id: string, key: string, name: string, prefix: string, expires_at: string | null }

function createCommand(cli: Cli): Command {
  const command = new Command('create')
    .description('make a key; it is shown this once')
    .argument('<name>', 'where it will be used')
    .requiredOption('--role <role>', 'what it may do: admin, developer, viewer')
    .option('--org <id>', 'in an organization that you manage')
    .option('--app <id>', 'or on one app of it')
    .option('--expires <time>', 'until when: 90d, or ISO 8601 (default: for ever)', timeFromNow(1))
    .addHelpText('after', examples(`
actorscope keys create CI --role developer --app com.acme.app --expires 90d
ACTORSCOPE_API_KEY=$(actorscope keys create laptop --role viewer --app com.acme.app) actorscope tail`) + `
Prints the key alone; what else there is to know about it goes to stderr. Only a signed-in person may make keys.
`)
  return withApi(command).action(async (name: string, { role, org, app, expires, ...options }: CreateOptions) => {
    const api = await openApi(cli, options, 'person')
    const created = await api.rpc<Created>('create_api_key', {
      name, role, org_id: org, app_id: app, expires_at: expires?.toISOString() })
    if (options.json) return cli.terminal.print(jsonLine(created))
    const end = created.expires_at ? `until ${created.expires_at}` : 'until it is revoked'
    cli.terminal.say(`Key ${visible(created.id)} works ${end}. It is shown this once:`)
    await cli.terminal.print(created.key)
  })
}

type KeyRow = {
  id: string
  name: string
  prefix: string
  created_at: string
  expires_at: string | null
  revoked_at: string | null
  last_used_at: string | null
}

function listCommand(cli: Cli): Command {
  const command = new Command('list')
    .description('list your keys, the newest first')
    .addHelpText('after', examples(`
actorscope keys list
actorscope keys list --json | jq -r 'select(.last_used_at == null) | .id'`))
  return withApi(command).action(async (options: ApiOptions) => {
    const api = await openApi(cli, options, 'person')
    const rows = await api.select<KeyRow>('api_keys', {
      select: 'id,name,prefix,created_at,expires_at,revoked_at,last_used_at', order: 'created_at.desc,id.desc' })
    const lines = options.json ? rows.map(jsonLine) : tableOf(rows, cli)
    for (const line of lines) await cli.terminal.print(line)
  })
}

function tableOf(rows: KeyRow[], { terminal }: Cli): string[] {
  const day = (time: string | null) => time?.slice(0, 10) ?? '–'
  const [headings = '', ...lines] = asTable(
    ['id', 'name', 'key', 'state', 'created', 'expires', 'last used'],
    rows.map((row) => [
      row.id, visible(row.name), `${visible(row.prefix)}…`, stateOf(row),
      day(row.created_at), day(row.expires_at), day(row.last_used_at),
    ]))
  return [terminal.colors.dim(headings), ...lines]
}

function stateOf({ expires_at, revoked_at }: KeyRow): string {
  if (revoked_at) return 'revoked'
  return expires_at && Date.parse(expires_at) <= Date.now() ? 'expired' : 'good'
}

function revokeCommand(cli: Cli): Command {
  const command = new Command('revoke')
    .description('revoke a key, at once and for good')
    .argument('<id>', 'the id that keys list shows')
    .addHelpText('after', examples('actorscope keys revoke 20000000-0000-4000-8000-000000000001'))
  return withApi(command).action(async (id: string, options: ApiOptions) => {
    const api = await openApi(cli, options)
    const revoked = await api.rpc<{ id: string, revoked_at: string }>('revoke_api_key', { id })
    await cli.terminal.print(options.json ? jsonLine(revoked) : `revoked at ${revoked.revoked_at}`)
  })
}
