import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { Select } from './figure.tsx'
import { rangeOf, ranges } from './filters.ts'
import { choose } from './route.ts'
import { useWorld } from './world.ts'

/** A section's head and what is in it. Whoever comes here by keyboard or screen reader begins at its title. */
export function Page({ title, lead, filters, children }: {
  title: string
  lead?: ComponentChildren
  /** Which of the choices for all sections matter here. */
  filters?: ('range' | 'app')[]
  children: ComponentChildren
}) {
  const head = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    document.title = `${title} · Actorscope`
    // Not on the first page, which is read from its top.
    if (arrived) head.current?.focus()
    arrived = true
  }, [])
  return (
    <>
      <div class="page-head">
        <div>
          <h1 ref={head} tabIndex={-1}>{title}</h1>
          {lead && <div class="lead">{lead}</div>}
        </div>
        {filters && <div class="filters">{filters.includes('app') && <AppSelect />}{filters.includes('range') && <RangeSelect />}</div>}
      </div>
      {children}
    </>
  )
}
let arrived = false

function AppSelect() {
  const { apps, route } = useWorld()
  const org = route.params.get('org')
  const own = apps.filter(({ owner_org }) => !org || owner_org === org)
  const options = { '': 'All apps', ...Object.fromEntries(own.map(({ app_id, name }) => [app_id, name])) }
  return <Select label="App" value={route.params.get('app') ?? ''} options={options} onChoose={(app) => choose({ app })} />
}

function RangeSelect() {
  const { route } = useWorld()
  const range = rangeOf(route)
  const today = new Date().toISOString().slice(0, 10)
  const day = (name: 'since' | 'until', label: string) => (
    <label class="field">
      <span class="label">{label}</span>
      <input type="date" value={route.params.get(name) ?? ''} max={today} onChange={({ currentTarget }) => choose({ [name]: currentTarget.value })} />
    </label>
  )
  const chooseRange = (next: string) => choose(next === 'custom' ? { range: next } : { range: next, since: null, until: null })
  return (
    <>
      {range === 'custom' && day('since', 'From')}
      {range === 'custom' && day('until', 'To')}
      <Select label="Range (UTC)" value={range} options={ranges} onChoose={chooseRange} />
    </>
  )
}
