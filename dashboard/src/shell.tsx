import type { ComponentType } from 'preact'
import { useEffect, useErrorBoundary, useRef } from 'preact/hooks'
import { Active } from './active.tsx'
import { Activity } from './activity.tsx'
import { Build } from './build.tsx'
import { Builds } from './builds.tsx'
import { Select } from './figure.tsx'
import { Funnel } from './funnel.tsx'
import { Icon, Logo, type IconName } from './icons.tsx'
import { Live } from './live.tsx'
import { Page } from './page.tsx'
import { People } from './people.tsx'
import { Person } from './person.tsx'
import { useNames } from './person-link.tsx'
import { Retention } from './retention.tsx'
import { Problem } from './questions.ts'
import { choose, linkTo } from './route.ts'
import { Empty, Trouble } from './states.tsx'
import { Surfaces } from './surfaces.tsx'
import { ThemeSelect } from './theme.tsx'
import { useWorld } from './world.ts'

const sections: Record<string, { name: string, icon: IconName, page: ComponentType, one?: ComponentType<{ id: string }> }> = {
  activity: { name: 'Activity', icon: 'activity', page: Activity },
  live: { name: 'Live', icon: 'live', page: Live },
  surfaces: { name: 'Surfaces', icon: 'surfaces', page: Surfaces },
  funnel: { name: 'Funnel', icon: 'funnel', page: Funnel },
  retention: { name: 'Retention', icon: 'retention', page: Retention },
  active: { name: 'Active', icon: 'active', page: Active },
  people: { name: 'People', icon: 'people', page: People, one: Person },
  builds: { name: 'Builds', icon: 'builds', page: Builds, one: Build },
}

/** The frame around every section: where one can go, for which organization, and as whom. */
export function Shell({ signOut }: { signOut(): void }) {
  const { route } = useWorld()
  const section = route.section || 'activity'
  const list = useRef<HTMLUListElement>(null)
  // On a phone the list is longer than the page is wide.
  useEffect(() => list.current?.querySelector('[aria-current]')?.scrollIntoView({ inline: 'center', block: 'nearest' }), [section])
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus() }}>Skip to content</a>
      <header class="side">
        <p class="brand"><Logo /> <span>Actorscope</span></p>
        <OrgSelect />
        <nav aria-label="Sections">
          <ul ref={list}>
            {Object.entries(sections).map(([name, { name: text, icon }]) => (
              <li key={name}><a href={linkTo(route, name)} aria-current={name === section ? 'page' : undefined}><Icon name={icon} /> {text}</a></li>
            ))}
          </ul>
        </nav>
        <Account signOut={signOut} />
      </header>
      <main id="main" tabIndex={-1}><Section key={`${section}/${route.id ?? ''}`} name={section} id={route.id} /></main>
    </div>
  )
}

function Section({ name, id }: { name: string, id?: string }) {
  const { page: All, one: One } = sections[name] ?? {}
  const [broken, mend] = useErrorBoundary()
  if (broken) {
    return (
      <Page title="Something broke">
        <Trouble problem={new Problem('This page cannot be shown', String(broken), 'It is a fault of the dashboard, not of the data.')} retry={mend} />
      </Page>
    )
  }
  if (id !== undefined && One) return <One id={id} />
  if (All && id === undefined) return <All />
  return <Page title="Nothing here"><Empty title="There is no such page"><p>Choose a section from the list.</p></Empty></Page>
}

function OrgSelect() {
  const { orgs, apps, route } = useWorld()
  const names = useNames()
  const ids = [...new Set([...orgs.map(({ id }) => id), ...apps.map(({ owner_org }) => owner_org)])]
  const options = { '': 'All that I may see', ...Object.fromEntries(ids.map((id) => [id, names.org(id)])) }
  return <Select label="Organization" value={route.params.get('org') ?? ''} options={options} isWide onChoose={(org) => choose({ org, app: null })} />
}

function Account({ signOut }: { signOut(): void }) {
  const { viewer } = useWorld()
  return (
    <details class="account">
      <summary><Icon name="menu" /> <span class="account-name">{viewer.email}</span></summary>
      <div class="account-menu">
        <p class="label">Signed in as {viewer.email}</p>
        <ThemeSelect />
        <button type="button" class="button" onClick={signOut}>Sign out</button>
      </div>
    </details>
  )
}
